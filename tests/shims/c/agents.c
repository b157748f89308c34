#define _POSIX_C_SOURCE 200809L

#include "agents.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SLEEP_SECONDS = 30 };

static arcp_port *port;

typedef struct run run;
typedef struct {
    const char *name;
    long (*count)(const run *);                /* events to emit */
    void (*emit)(run *, long index, bool *full); /* one of them */
    void (*finish)(run *);                     /* after the last; may leave the run going */
} agent;

struct run {
    arcp_invocation *invocation;
    const agent *agent;
    long sent;
    size_t written;                    /* of the part that is being written */
    struct timespec until;             /* of a sleeper */
    void (*then)(run *, arcp_item *);  /* of the call that is waited for, one at a time; NULL without one */
    bool sleeping, opened, gone;
    run *next;
};

static run *runs;

static void run_free_if_over(run *one) {
    if (!one->gone || one->then != NULL) {
        return;
    }
    for (run **at = &runs; *at != NULL; at = &(*at)->next) {
        if (*at == one) {
            *at = one->next;
            break;
        }
    }
    arcp_invocation_free(one->invocation);
    free(one);
}

static void run_complete(run *one, const char *result) {
    arcp_invocation_complete(one->invocation, result, NULL);
    one->gone = true;
}

/* Ends as the library's own error says. */
static void run_fail(run *one, const arcp_error *error) {
    const char *code = arcp_error_code(error);
    arcp_invocation_fail(one->invocation, *code != '\0' ? code : NULL, arcp_error_message(error),
                         arcp_error_retryable(error), arcp_error_details(error), NULL);
    one->gone = true;
}

/* Fails the run unless the call worked; the error is used up. */
static bool run_goes_on(run *one, arcp_result result, arcp_error *error) {
    if (result != ARCP_OK) {
        run_fail(one, error);
    }
    arcp_error_free(error);
    return result == ARCP_OK;
}

static uint64_t number_of(const run *one) {
    return (uint64_t)(uintptr_t)one;
}

static void run_advance(run *one);

static void then_drained(run *one, arcp_item *item) {
    (void)item;
    run_advance(one);
}

static void run_advance(run *one) {
    while (!one->gone && one->sent < one->agent->count(one)) {
        bool full = false;
        one->agent->emit(one, one->sent++, &full);
        if (full && !one->gone && arcp_invocation_drained(one->invocation, port, number_of(one), NULL) == ARCP_OK) {
            one->then = then_drained;
            return;
        }
    }
    if (!one->gone) {
        one->agent->finish(one);
    }
}

static void emit(run *one, const char *kind, const char *body, bool *full) {
    arcp_invocation_emit(one->invocation, kind, body, full, NULL);
}

static long count_none(const run *one) {
    (void)one;
    return 0;
}

static long count_one(const run *one) {
    (void)one;
    return 1;
}

static void echo_emit(run *one, long index, bool *full) {
    (void)index;
    emit(one, "log", "{\"level\":\"info\",\"message\":\"echo started\"}", full);
}

static void echo_finish(run *one) {
    text out = {0};
    text_add(&out, "{\"echoed\":");
    text_add(&out, arcp_invocation_input(one->invocation));
    text_add(&out, "}");
    run_complete(one, out.at);
    free(out.at);
}

static const char *const EVENTS[][2] = {
    {"status", "{\"phase\":\"working\",\"message\":\"step one\"}"},
    {"log", "{\"level\":\"info\",\"message\":\"hello\"}"},
    {"thought", "{\"text\":\"thinking\"}"},
    {"tool_call", "{\"tool\":\"clock\",\"args\":{},\"call_id\":\"c1\"}"},
    {"tool_result", "{\"call_id\":\"c1\",\"result\":\"19:30\"}"},
    {"metric", "{\"name\":\"files.read\",\"value\":2.5,\"unit\":\"files\"}"},
    {"progress", "{\"current\":1,\"total\":2,\"units\":\"steps\"}"},
    {"artifact_ref", "{\"uri\":\"file:///report.txt\",\"content_type\":\"text/plain\",\"byte_size\":12}"},
    {"x-vendor.example.note", "{\"text\":\"a note\"}"},
};

static long events_count(const run *one) {
    (void)one;
    return (long)(sizeof EVENTS / sizeof EVENTS[0]);
}

static void events_emit(run *one, long index, bool *full) {
    emit(one, EVENTS[index][0], EVENTS[index][1], full);
}

static void events_finish(run *one) {
    run_complete(one, "{\"count\":9}");
}

static void sleeper_emit(run *one, long index, bool *full) {
    (void)index;
    emit(one, "status", "{\"phase\":\"running\"}", full);
}

static void sleeper_finish(run *one) {
    clock_gettime(CLOCK_MONOTONIC, &one->until);
    one->until.tv_sec += SLEEP_SECONDS;
    one->sleeping = true;
}

static void fails_finish(run *one) {
    arcp_invocation_fail(one->invocation, NULL, "boom", true, NULL, NULL);
    one->gone = true;
}

static void refuses_finish(run *one) {
    arcp_invocation_fail(one->invocation, "PERMISSION_DENIED", "policy says no", false, "{\"why\":\"policy\"}", NULL);
    one->gone = true;
}

static void authorizes_finish(run *one) {
    char *path = json_string(json_member(json_parse(arcp_invocation_input(one->invocation)), "path"));
    arcp_error *error;
    if (arcp_invocation_authorize(one->invocation, "fs.read", path, &error) == ARCP_OK) {
        run_complete(one, "{\"allowed\":true}");
    } else {
        text body = {0};
        text_add(&body, "{\"call_id\":\"c1\",\"error\":{\"code\":");
        text_add_string(&body, arcp_error_code(error));
        text_add(&body, ",\"message\":");
        text_add_string(&body, arcp_error_message(error));
        text_add(&body, arcp_error_retryable(error) ? ",\"retryable\":true}}" : ",\"retryable\":false}}");
        emit(one, "tool_result", body.at, NULL);
        run_complete(one, "{\"allowed\":false}");
        free(body.at);
    }
    arcp_error_free(error);
    free(path);
}

static long slow_count(const run *one) {
    return json_number(json_member(json_parse(arcp_invocation_input(one->invocation)), "n"), 0);
}

static void slow_emit(run *one, long index, bool *full) {
    char body[96];
    snprintf(body, sizeof body, "{\"current\":%ld,\"total\":%ld}", index + 1, slow_count(one));
    emit(one, "progress", body, full);
}

static void slow_finish(run *one) {
    char result[64];
    snprintf(result, sizeof result, "{\"sent\":%ld}", slow_count(one));
    run_complete(one, result);
}

static const char *const PARTS[] = {"[1,2", ",3]"};

static long streams_count(const run *one) {
    (void)one;
    return (long)(sizeof PARTS / sizeof PARTS[0]);
}

/* Writes what may be written of one part; comes again for the rest of it. */
static void streams_emit(run *one, long index, bool *full) {
    arcp_error *error;
    arcp_result result;
    if (!one->opened) {
        one->opened = true;
        result = arcp_invocation_open_result(one->invocation, NULL, 0, NULL, &error);
        if (!run_goes_on(one, result, error)) {
            return;
        }
    }
    const char *rest = PARTS[index] + one->written;
    const uint8_t *bytes = (const uint8_t *)rest;
    size_t taken;
    result = arcp_invocation_write_result(one->invocation, bytes, strlen(rest), true, &taken, full, &error);
    if (!run_goes_on(one, result, error)) {
        return;
    }
    one->written += taken;
    if (taken < strlen(rest)) {
        one->sent--;
        return;
    }
    one->written = 0;
    if (index == 0) {
        result = arcp_invocation_flush_result(one->invocation, &error);
        run_goes_on(one, result, error);
    }
}

static void streams_finish(run *one) {
    arcp_error *error;
    arcp_result result = arcp_invocation_finish_result(one->invocation, "three numbers", &error);
    if (run_goes_on(one, result, error)) {
        run_complete(one, "null");
    }
}

static void then_child_ended(run *one, arcp_item *item) {
    text out = {0};
    text_add(&out, "{\"child\":");
    text_add(&out, item->text);
    text_add(&out, "}");
    run_complete(one, out.at);
    free(out.at);
}

static void then_delegated(run *one, arcp_item *item) {
    char *job_id = json_string(json_member(json_parse(item->text), "job_id"));
    arcp_error *error;
    arcp_result result = arcp_invocation_child_result(one->invocation, port, number_of(one), job_id, &error);
    if (run_goes_on(one, result, error)) {
        one->then = then_child_ended;
    }
    free(job_id);
}

static void delegates_finish(run *one) {
    text request = {0};
    text_add(&request, "{\"agent\":\"echo\",\"delegate_id\":\"d1\",\"input\":");
    text_add(&request, arcp_invocation_input(one->invocation));
    text_add(&request, "}");
    arcp_error *error;
    arcp_result result = arcp_invocation_delegate(one->invocation, port, number_of(one), request.at, &error);
    if (run_goes_on(one, result, error)) {
        one->then = then_delegated;
    }
    free(request.at);
}

static const agent AGENTS[] = {
    {"echo", count_one, echo_emit, echo_finish},
    {"events", events_count, events_emit, events_finish},
    {"sleeper", count_one, sleeper_emit, sleeper_finish},
    {"fails", count_none, NULL, fails_finish},
    {"refuses", count_none, NULL, refuses_finish},
    {"authorizes", count_none, NULL, authorizes_finish},
    {"slow", slow_count, slow_emit, slow_finish},
    {"streams", streams_count, streams_emit, streams_finish},
    {"delegates", count_none, NULL, delegates_finish},
};
enum { AGENT_COUNT = sizeof AGENTS / sizeof AGENTS[0] };

/* `name` may carry a version. */
static const agent *named(const char *name) {
    size_t length = strcspn(name, "@");
    for (int i = 0; i < AGENT_COUNT; i++) {
        if (strlen(AGENTS[i].name) == length && strncmp(AGENTS[i].name, name, length) == 0) {
            return &AGENTS[i];
        }
    }
    return NULL;
}

static void invoke(arcp_item *item) {
    run *one = malloc(sizeof *one);
    if (one == NULL) {
        abort();
    }
    *one = (run){.invocation = item->invocation, .agent = named(arcp_invocation_agent(item->invocation)), .next = runs};
    item->invocation = NULL;
    runs = one;
    run_advance(one);
    run_free_if_over(one);
}

static run *run_of(uint64_t invocation) {
    for (run *one = runs; one != NULL; one = one->next) {
        if (!one->gone && arcp_invocation_id(one->invocation) == invocation) {
            return one;
        }
    }
    return NULL;
}

static void give_way(run *one) {
    if (one->sleeping) {
        emit(one, "log", "{\"level\":\"info\",\"message\":\"cleaned up\"}", NULL);
    }
    arcp_invocation_cancelled(one->invocation, NULL);
    one->gone = true;
    run_free_if_over(one);
}

int agents_wake(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long soonest = -1;
    for (run *one = runs, *next; one != NULL; one = next) {
        next = one->next;
        if (!one->sleeping) {
            continue;
        }
        long left = (one->until.tv_sec - now.tv_sec) * 1000 + (one->until.tv_nsec - now.tv_nsec) / 1000000;
        if (left <= 0) {
            run_complete(one, "{\"slept\":true}");
            run_free_if_over(one);
        } else if (soonest < 0 || left < soonest) {
            soonest = left;
        }
    }
    return (int)soonest;
}

static void completed(run *one, arcp_item *item) {
    void (*then)(run *, arcp_item *) = one->then;
    one->then = NULL;
    if (one->gone) {
        return;
    }
    if (item->error != NULL) {
        run_fail(one, item->error);
    } else {
        then(one, item);
    }
}

static void handle(arcp_item *item) {
    run *one;
    switch (item->kind) {
        case ARCP_ITEM_INVOKE:
            invoke(item);
            break;
        case ARCP_ITEM_COMPLETED:
            one = (run *)(uintptr_t)item->number;
            completed(one, item);
            run_free_if_over(one);
            break;
        case ARCP_ITEM_CANCEL:
            if ((one = run_of(item->number)) != NULL) {
                give_way(one);
            }
            break;
        case ARCP_ITEM_ABANDONED:
            if ((one = run_of(item->number)) != NULL) {
                one->gone = true;
                run_free_if_over(one);
            }
            break;
        default:
            break;
    }
}

void agents_drain(void) {
    arcp_item item;
    while (arcp_port_next(port, &item, NULL) == ARCP_OK && item.kind != ARCP_ITEM_NONE) {
        handle(&item);
        arcp_item_clear(&item);
    }
}

arcp_port *agents_start(const arcp_core *core) {
    arcp_port_new(core, NULL, NULL, &port, NULL);
    return port;
}

bool agents_know(const char *name) {
    return named(name) != NULL;
}

const char *agents_name(int index) {
    return index < AGENT_COUNT ? AGENTS[index].name : NULL;
}
