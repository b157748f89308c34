/* The corpus agents, behind a port of their own. */
#ifndef SHIM_AGENTS_H
#define SHIM_AGENTS_H

#include <arcp.h>

#include "json.h"

/* The port to register agents with; NULL when there is none to be had. */
arcp_port *agents_start(const arcp_core *core);

/* Whether an agent of this name, with or without a version, is among them. */
bool agents_know(const char *name);

/* Their names from 0 on, then NULL. */
const char *agents_name(int index);

/* Does what waits at the port. */
void agents_drain(void);

/* Ends the sleepers whose time is over; the milliseconds to the next one, or -1. */
int agents_wake(void);

#endif
