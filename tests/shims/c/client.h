/* Sessions and their jobs. */
#ifndef SHIM_CLIENT_H
#define SHIM_CLIENT_H

#include "calls.h"

/* Carries the command out; false when it is none of a client's. */
bool client_carries_out(long id, const char *what, json command);

/* Events wait for the job whose stream this is. */
void client_stream_ready(uint64_t stream);

#endif
