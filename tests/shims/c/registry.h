/* Agent registries. */
#ifndef SHIM_REGISTRY_H
#define SHIM_REGISTRY_H

#include "calls.h"

/* Carries the command out; false when it is none about a registry. */
bool registry_carries_out(long id, const char *what, json command);

#endif
