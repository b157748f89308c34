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
    struct timespec until; /* of a sleeper */
    bool sleeping, draining, gone;
    run *next;
};

static run *runs;

static void run_free_if_over(run *one) {
    if (!one->gone || one->draining) {
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

static void run_advance(run *one) {
    while (one->sent < one->agent->count(one)) {
        bool full = false;
        one->agent->emit(one, one->sent++, &full);
        uint64_t call = (uint64_t)(uintptr_t)one;
        if (full && arcp_invocation_drained(one->invocation, port, call, NULL) == ARCP_OK) {
            one->draining = true;
            return;
        }
    }
    one->agent->finish(one);
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

static const agent AGENTS[] = {
    {"echo", count_one, echo_emit, echo_finish},
    {"events", events_count, events_emit, events_finish},
    {"sleeper", count_one, sleeper_emit, sleeper_finish},
    {"fails", count_none, NULL, fails_finish},
    {"refuses", count_none, NULL, refuses_finish},
    {"authorizes", count_none, NULL, authorizes_finish},
    {"slow", slow_count, slow_emit, slow_finish},
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

static void handle(arcp_item *item) {
    run *one;
    switch (item->kind) {
        case ARCP_ITEM_INVOKE:
            invoke(item);
            break;
        case ARCP_ITEM_COMPLETED: /* drained */
            one = (run *)(uintptr_t)item->number;
            one->draining = false;
            if (!one->gone) {
                run_advance(one);
            }
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
