/* Answers to the harness, the handles it repeats, and the library's calls under way. */
#ifndef SHIM_CALLS_H
#define SHIM_CALLS_H

#include <arcp.h>

#include "json.h"

extern arcp_core *core;
extern arcp_port *port; /* where the calls below complete */

/* Zeroed memory; there is always some. */
void *make(size_t size);

/* The number a call or stream goes by: the address of what waits for it. */
uint64_t number_of(const void *what);

/* One answer; `member` is `ok` or `error`, `value` JSON. */
void answer(long id, const char *member, const char *value);

/* Answers `ok`; uses the text up. */
void answer_text(long id, text *value);

/* `details` is JSON or NULL. */
void answer_error(long id, const char *code, const char *message, bool retryable, const char *details);

void answer_bad(long id, const char *message);

/* Answers with the library's error; a failure on this side gets the harness's word for it. */
void answer_failure(long id, const arcp_error *error);

/* What the harness has handles of: a letter and an index here. */
typedef struct {
    void **all;
    size_t count;
} handles;

size_t handles_add(handles *table, void *what);

/* What the handle in this member stands for; NULL when there is no such. */
void *handles_find(const handles *table, json command, const char *member);

/* Adds the member with the handle, without a comma before it. */
void add_handle(text *out, const char *member, char letter, size_t index);

typedef struct call call;
struct call {
    long id;
    void (*then)(call *, arcp_item *); /* only called on success, unless it is `failed_too` */
    bool failed_too;
    void *subject;
    char *token, *resume; /* what a connection opens or takes up its session with */
    char *ended;          /* the library's text on how a job ended, whose bytes are asked for */
};

call *call_new(long id, void (*then)(call *, arcp_item *), void *subject);
void call_free(call *one);

/* A call that could not be begun has its answer at once. `error` is read after the call beside it was made. */
void begun(call *one, arcp_result result, arcp_error **error);

/* The call of this item is done. */
void call_completed(arcp_item *item);

/* Answers `{}`, unless the call's id is below 0. */
void then_nothing(call *one, arcp_item *item);

#endif
