/* Runtimes and what they listen at. */
#ifndef SHIM_HOSTING_H
#define SHIM_HOSTING_H

#include "calls.h"

/* Carries the command out; false when it is none of a runtime's. `agents` is where the corpus agents are. */
bool hosting_carries_out(long id, arcp_port *agents, const char *what, json command);

#endif
