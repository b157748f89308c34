#include "calls.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

arcp_core *core;
arcp_port *port;

void *make(size_t size) {
    void *made = calloc(1, size);
    if (made == NULL) {
        abort();
    }
    return made;
}

uint64_t number_of(const void *what) {
    return (uint64_t)(uintptr_t)what;
}

void answer(long id, const char *member, const char *value) {
    printf("{\"id\":%ld,\"%s\":%s}\n", id, member, value);
    fflush(stdout);
}

void answer_text(long id, text *value) {
    answer(id, "ok", value->at);
    free(value->at);
}

void answer_error(long id, const char *code, const char *message, bool retryable, const char *details) {
    text out = {0};
    text_add(&out, "{\"code\":");
    text_add_string(&out, code);
    text_add(&out, ",\"message\":");
    text_add_string(&out, message);
    text_add(&out, retryable ? ",\"retryable\":true" : ",\"retryable\":false");
    if (details != NULL) {
        text_add(&out, ",\"details\":");
        text_add(&out, details);
    }
    text_add(&out, "}");
    answer(id, "error", out.at);
    free(out.at);
}

void answer_bad(long id, const char *message) {
    answer_error(id, "BAD_ARGUMENT", message, false, NULL);
}

/* The code of a failure on this side, in the harness's words. */
static const char *local_code(arcp_result result) {
    switch (result) {
        case ARCP_CLOSED: return "CLOSED";
        case ARCP_TRANSPORT: return "TRANSPORT";
        case ARCP_WAIT_TIMEOUT: return "TIMEOUT_LOCAL";
        case ARCP_REGISTRY: return "REGISTRY";
        case ARCP_BAD_ARGUMENT:
        case ARCP_NULL_ARGUMENT: return "BAD_ARGUMENT";
        default: return arcp_result_name(result);
    }
}

void answer_failure(long id, const arcp_error *error) {
    const char *code = arcp_error_code(error);
    answer_error(id, *code != '\0' ? code : local_code(arcp_error_result(error)), arcp_error_message(error),
                 arcp_error_retryable(error), arcp_error_details(error));
}

size_t handles_add(handles *table, void *what) {
    table->all = realloc(table->all, (table->count + 1) * sizeof *table->all);
    if (table->all == NULL) {
        abort();
    }
    table->all[table->count] = what;
    return table->count++;
}

void *handles_find(const handles *table, json command, const char *member) {
    char *name = json_string(json_member(command, member));
    char *end = NULL;
    size_t index = name != NULL && *name != '\0' ? strtoul(name + 1, &end, 10) : table->count;
    bool found = end != NULL && *end == '\0' && index < table->count;
    free(name);
    return found ? table->all[index] : NULL;
}

void add_handle(text *out, const char *member, char letter, size_t index) {
    char name[64];
    snprintf(name, sizeof name, "\"%s\":\"%c%zu\"", member, letter, index);
    text_add(out, name);
}

call *call_new(long id, void (*then)(call *, arcp_item *), void *subject) {
    call *made = make(sizeof *made);
    *made = (call){.id = id, .then = then, .subject = subject};
    return made;
}

void call_free(call *one) {
    free(one->token);
    free(one->resume);
    free(one->ended);
    free(one);
}

void begun(call *one, arcp_result result, arcp_error **error) {
    if (result != ARCP_OK) {
        answer_failure(one->id, *error);
        call_free(one);
    }
    arcp_error_free(*error);
}

void then_nothing(call *one, arcp_item *item) {
    (void)item;
    if (one->id >= 0) {
        answer(one->id, "ok", "{}");
    }
}

void call_completed(arcp_item *item) {
    call *done = (call *)(uintptr_t)item->number;
    if (item->error == NULL || done->failed_too) {
        done->then(done, item);
    } else {
        answer_failure(done->id, item->error);
    }
    call_free(done);
}
