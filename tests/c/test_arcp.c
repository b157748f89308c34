/*
 * The C library through its header: a client and agents in one process, over a memory pair and over WebSocket.
 * Agents run on a thread of their own behind their own port; the test's thread is the client and waits by blocking.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MAX_EVENTS = 64 };

/* Agents --------------------------------------------------------------------------------------------------------- */

static const char *const EVENTS[][2] = {
    {"status", "{\"phase\":\"working\",\"message\":\"step one\"}"},
    {"log", "{\"level\":\"info\",\"message\":\"h\\u00e9llo\"}"},
    {"metric", "{\"name\":\"files.read\",\"value\":2.5}"},
    {"x-vendor.example.note", "{\"text\":\"\xc3\xa9\"}"},
};
enum { EVENT_COUNT = sizeof EVENTS / sizeof EVENTS[0] };

static void run_agent(const arcp_invocation *invocation) {
    const char *agent = arcp_invocation_agent(invocation);
    if (strcmp(agent, "echo") == 0) {
        arcp_invocation_complete(invocation, arcp_invocation_input(invocation), NULL);
    } else if (strcmp(agent, "events") == 0) {
        for (int i = 0; i < EVENT_COUNT; i++) {
            arcp_invocation_emit(invocation, EVENTS[i][0], EVENTS[i][1], NULL, NULL);
        }
        arcp_invocation_complete(invocation, "null", NULL);
    } else if (strcmp(agent, "refuses") == 0) {
        arcp_invocation_fail(invocation, "PERMISSION_DENIED", "policy says no", false, "{\"why\":\"policy\"}", NULL);
    } else if (strcmp(agent, "foreign") == 0) {
        arcp_invocation_fail(invocation, "X_OUR_OWN", "our own code", true, NULL, NULL);
    } else if (strcmp(agent, "garbles") == 0) {
        arcp_error *error;
        EXPECT(ARCP_INVALID_REQUEST, arcp_invocation_emit(invocation, "log", "{not json", NULL, &error));
        EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_emit(invocation, NULL, "{}", NULL, &error));
        CHECK(arcp_invocation_complete(invocation, "{not json", NULL) != ARCP_OK);
    } else if (strcmp(agent, "authorizes") == 0) {
        arcp_error *error;
        EXPECT(ARCP_OK, arcp_invocation_authorize(invocation, "fs.read", "/data/a", &error));
        EXPECT(ARCP_PERMISSION_DENIED, arcp_invocation_authorize(invocation, "fs.read", "/data/../etc", &error));
        CHECK_HOLDS(arcp_invocation_lease(invocation), "/data/**");
        CHECK_TEXT(arcp_invocation_principal(invocation), "alice");
        arcp_invocation_complete(invocation, "true", NULL);
    }
    /* `drops` answers nothing: its invocation is freed with the item. */
}

/* The thread behind the agents' port, until that is closed. One `sleeper` runs at a time. */
static void *run_agents(void *pointer) {
    arcp_port *port = pointer;
    arcp_invocation *sleeping = NULL;
    while (arcp_port_wait(port, -1, NULL) == ARCP_OK) {
        arcp_item item;
        while (arcp_port_next(port, &item, NULL) == ARCP_OK && item.kind != ARCP_ITEM_NONE) {
            if (item.kind == ARCP_ITEM_INVOKE && strcmp(arcp_invocation_agent(item.invocation), "sleeper") == 0) {
                sleeping = item.invocation;
                item.invocation = NULL;
                arcp_invocation_emit(sleeping, "status", "{\"phase\":\"running\"}", NULL, NULL);
            } else if (item.kind == ARCP_ITEM_INVOKE) {
                run_agent(item.invocation);
            } else if (item.kind == ARCP_ITEM_CANCEL && sleeping != NULL && item.number == arcp_invocation_id(sleeping)) {
                CHECK_TEXT(item.cause, "cancelled");
                CHECK(same(item.text, "enough") || same(item.text, "the runtime stops"));
                arcp_invocation_emit(sleeping, "log", "{\"level\":\"info\",\"message\":\"cleaned up\"}", NULL, NULL);
                arcp_invocation_cancelled(sleeping, NULL);
                arcp_invocation_free(sleeping);
                sleeping = NULL;
            } else if (item.kind == ARCP_ITEM_VERIFY) {
                if (strcmp(arcp_verification_token(item.verification), "good") == 0) {
                    arcp_verification_accept(item.verification, "alice", NULL);
                } else {
                    arcp_verification_refuse(item.verification, NULL, "not you", NULL);
                }
            }
            arcp_item_clear(&item);
        }
    }
    arcp_invocation_free(sleeping);
    return NULL;
}

/* A world: runtime and client, joined ---------------------------------------------------------------------------- */

static const char *const CLIENT = "{\"name\":\"test\",\"version\":\"1\"}";
static const char *const RUNTIME = "{\"name\":\"test\",\"version\":\"1\"}";

typedef struct {
    arcp_core *core;
    arcp_port *port, *agents;
    arcp_runtime *runtime;
    arcp_client *client;
    pthread_t thread;
    uint64_t calls;
} world;

static world world_new(bool ask_the_host) {
    static const arcp_token tokens[] = {{"good", "alice"}};
    static const char *const names[] = {"echo", "events", "sleeper", "refuses", "foreign", "garbles", "authorizes", "drops"};
    world w = {0};
    arcp_error *error;
    EXPECT(ARCP_OK, arcp_core_new(2, &w.core, &error));
    EXPECT(ARCP_OK, arcp_port_new(w.core, NULL, NULL, &w.port, &error));
    EXPECT(ARCP_OK, arcp_port_new(w.core, NULL, NULL, &w.agents, &error));
    if (ask_the_host) {
        EXPECT(ARCP_OK, arcp_runtime_with_verifier_new(w.core, RUNTIME, w.agents, &w.runtime, &error));
    } else {
        EXPECT(ARCP_OK, arcp_runtime_new(w.core, RUNTIME, tokens, 1, &w.runtime, &error));
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        EXPECT(ARCP_OK, arcp_runtime_register_agent(w.runtime, w.agents, names[i], NULL, &error));
    }
    CHECK(pthread_create(&w.thread, NULL, run_agents, w.agents) == 0);
    return w;
}

/* Connects a new client over a memory pair; the runtime's end of the session completes nowhere of interest. */
static arcp_result world_connect(world *w, const char *token, arcp_client **client, arcp_error **error) {
    arcp_transport *ours, *theirs;
    arcp_transport_pair_new(&ours, &theirs, NULL);
    arcp_client_new(w->core, CLIENT, client, NULL);
    uint64_t accept = ++w->calls, connect = ++w->calls;
    arcp_runtime_accept(w->runtime, w->port, accept, theirs, NULL);
    arcp_transport_free(theirs);
    arcp_client_connect(*client, w->port, connect, ours, token, NULL);
    arcp_transport_free(ours);
    arcp_item item;
    arcp_result result = arcp_port_wait_call(w->port, connect, WAIT_MS, &item, error);
    if (result == ARCP_OK) {
        CHECK_HOLDS(item.text, "\"session_id\"");
    }
    arcp_item_clear(&item);
    return result;
}

static world world_open(void) {
    world w = world_new(false);
    arcp_error *error;
    EXPECT(ARCP_OK, world_connect(&w, "good", &w.client, &error));
    return w;
}

static void world_free(world *w) {
    arcp_port_close(w->agents);
    pthread_join(w->thread, NULL);
    arcp_core_shutdown(w->core, 1000);
    arcp_client_free(w->client);
    arcp_runtime_free(w->runtime);
    arcp_port_free(w->agents);
    arcp_port_free(w->port);
    arcp_core_free(w->core);
}

static arcp_job *submit(world *w, const char *request) {
    arcp_error *error;
    arcp_item item;
    uint64_t call = ++w->calls;
    EXPECT(ARCP_OK, arcp_client_submit(w->client, w->port, call, request, &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w->port, call, WAIT_MS, &item, &error));
    arcp_job *job = item.job;
    item.job = NULL;
    CHECK(job != NULL);
    arcp_item_clear(&item);
    return job;
}

/* Waits for the job's end; the JSON of its result goes to `text` (cut, if need be). */
static arcp_result result_of(world *w, const arcp_job *job, char *text, size_t size, arcp_error **error) {
    arcp_item item;
    uint64_t call = ++w->calls;
    arcp_job_result(job, w->port, call, NULL);
    arcp_result result = arcp_port_wait_call(w->port, call, WAIT_MS, &item, error);
    snprintf(text, size, "%s", item.text != NULL ? item.text : "");
    arcp_item_clear(&item);
    return result;
}

typedef struct {
    char kind[64], body[256];
} seen;

/* Takes up to `max` events, or all until the end. */
static int take_events(world *w, const arcp_job *job, seen *events, int max, bool *ended) {
    arcp_error *error;
    uint64_t stream = ++w->calls;
    int count = 0;
    *ended = false;
    while (count < max) {
        arcp_event_batch *batch;
        if (!EXPECT(ARCP_OK, arcp_job_next_batch(job, w->port, stream, (size_t)(max - count), &batch, ended, &error))) {
            break;
        }
        if (*ended) {
            break;
        }
        if (batch == NULL) {
            if (!EXPECT(ARCP_OK, arcp_port_wait_stream(w->port, stream, WAIT_MS, &error))) {
                break;
            }
            continue;
        }
        size_t length;
        const arcp_event *taken = arcp_event_batch_events(batch, &length);
        CHECK(length > 0 && length <= (size_t)(max - count));
        for (size_t i = 0; i < length && count < max; i++, count++) {
            CHECK(strlen(taken[i].kind) == taken[i].kind_length && strlen(taken[i].body) == taken[i].body_length);
            CHECK(taken[i].ts_length > 0 && taken[i].event_seq > 0);
            snprintf(events[count].kind, sizeof events[count].kind, "%s", taken[i].kind);
            snprintf(events[count].body, sizeof events[count].body, "%s", taken[i].body);
        }
        arcp_event_batch_free(batch);
    }
    return count;
}

/* Tests ---------------------------------------------------------------------------------------------------------- */

static void test_names(void) {
    CHECK_TEXT(arcp_protocol_version(), "1.1");
    CHECK_HOLDS(arcp_version(), ".");
    CHECK_TEXT(arcp_result_name(ARCP_CLOSED), "ARCP_CLOSED");
    CHECK_TEXT(arcp_result_name(99), "an unknown result");
    CHECK(ARCP_PERMISSION_DENIED == 1 && ARCP_INTERNAL_ERROR == 15 && ARCP_OTHER_CODE == 16);
    CHECK(ARCP_CLOSED == 101 && ARCP_PANIC == 107);
}

static void test_echo(void) {
    world w = world_open();
    arcp_error *error;
    char text[512];
    arcp_job *job = submit(&w, "{\"agent\":\"echo\",\"input\":{\"big\":9007199254740993,\"text\":\"\xc3\xa9\"}}");
    CHECK(strncmp(arcp_job_id(job), "job_", 4) == 0);
    CHECK_HOLDS(arcp_job_opening(job), arcp_job_id(job));
    for (int i = 0; i < 2; i++) {
        EXPECT(ARCP_OK, result_of(&w, job, text, sizeof text, &error));
        CHECK_HOLDS(text, "{\"big\":9007199254740993,\"text\":\"\xc3\xa9\"}");
    }
    CHECK(arcp_client_has_feature(w.client, "progress") && !arcp_client_has_feature(w.client, "x"));
    char *features;
    EXPECT(ARCP_OK, arcp_client_features(w.client, &features, &error));
    CHECK_HOLDS(features, "\"progress\"");
    arcp_string_free(features);
    arcp_job_free(job);
    world_free(&w);
}

static void test_events(void) {
    world w = world_open();
    seen events[MAX_EVENTS];
    bool ended;
    arcp_job *job = submit(&w, "{\"agent\":\"events\"}");
    CHECK(take_events(&w, job, events, 1, &ended) == 1 && !ended);
    CHECK(take_events(&w, job, events + 1, MAX_EVENTS - 1, &ended) == EVENT_COUNT - 1 && ended);
    for (int i = 0; i < EVENT_COUNT; i++) {
        CHECK_TEXT(events[i].kind, EVENTS[i][0]);
        CHECK_TEXT(events[i].body, EVENTS[i][1]);
    }
    CHECK(arcp_client_latest_event_seq(w.client) >= EVENT_COUNT);
    arcp_job_free(job);
    world_free(&w);
}

static void test_cancel(void) {
    world w = world_open();
    arcp_error *error;
    seen events[MAX_EVENTS];
    char text[512];
    bool ended;
    arcp_job *job = submit(&w, "{\"agent\":\"sleeper\"}");
    CHECK(take_events(&w, job, events, 1, &ended) == 1);
    EXPECT(ARCP_WAIT_TIMEOUT, arcp_port_wait_call(w.port, 123456, 20, NULL, &error));
    EXPECT(ARCP_OK, arcp_client_cancel_job(w.client, arcp_job_id(job), "enough", &error));
    CHECK(take_events(&w, job, events, MAX_EVENTS, &ended) == 1 && ended);
    CHECK_HOLDS(events[0].body, "cleaned up");
    EXPECT(ARCP_CANCELLED, result_of(&w, job, text, sizeof text, &error));
    arcp_job_free(job);
    world_free(&w);
}

static void test_agent_errors(void) {
    world w = world_open();
    arcp_error *error;
    char text[512];
    arcp_job *job = submit(&w, "{\"agent\":\"refuses\"}");
    arcp_result result = result_of(&w, job, text, sizeof text, &error);
    CHECK_TEXT(arcp_error_code(error), "PERMISSION_DENIED");
    CHECK_HOLDS(arcp_error_message(error), "policy says no");
    CHECK_TEXT(arcp_error_details(error), "{\"why\":\"policy\"}");
    CHECK(!arcp_error_retryable(error));
    EXPECT(ARCP_PERMISSION_DENIED, result);
    arcp_job_free(job);

    job = submit(&w, "{\"agent\":\"foreign\"}");
    result = result_of(&w, job, text, sizeof text, &error);
    CHECK_TEXT(arcp_error_code(error), "X_OUR_OWN");
    CHECK(arcp_error_retryable(error) && arcp_error_details(error) == NULL);
    EXPECT(ARCP_OTHER_CODE, result);
    arcp_job_free(job);

    const char *const internal[] = {"{\"agent\":\"drops\"}", "{\"agent\":\"garbles\"}"};
    for (int i = 0; i < 2; i++) {
        job = submit(&w, internal[i]);
        EXPECT(ARCP_INTERNAL_ERROR, result_of(&w, job, text, sizeof text, &error));
        arcp_job_free(job);
    }
    world_free(&w);
}

static void test_lease(void) {
    world w = world_open();
    arcp_error *error;
    char text[512];
    arcp_job *job = submit(&w, "{\"agent\":\"authorizes\",\"lease_request\":{\"fs.read\":[\"/data/**\"]}}");
    EXPECT(ARCP_OK, result_of(&w, job, text, sizeof text, &error));
    arcp_job_free(job);
    world_free(&w);
}

static void test_subscribe(void) {
    world w = world_open();
    arcp_error *error;
    arcp_client *other;
    arcp_item item;
    seen events[MAX_EVENTS];
    char request[256];
    bool ended;
    EXPECT(ARCP_OK, world_connect(&w, "good", &other, &error));
    arcp_job *job = submit(&w, "{\"agent\":\"events\"}");
    CHECK(take_events(&w, job, events, MAX_EVENTS, &ended) == EVENT_COUNT);
    snprintf(request, sizeof request, "{\"job_id\":\"%s\",\"history\":true}", arcp_job_id(job));
    uint64_t call = ++w.calls;
    EXPECT(ARCP_OK, arcp_client_subscribe(other, w.port, call, request, &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, call, WAIT_MS, &item, &error));
    CHECK(take_events(&w, item.job, events, MAX_EVENTS, &ended) == EVENT_COUNT && ended);
    EXPECT(ARCP_OK, arcp_client_unsubscribe(other, arcp_job_id(job), &error));
    arcp_item_clear(&item);
    arcp_job_free(job);
    arcp_client_free(other);
    world_free(&w);
}

static void test_null_arguments(void) {
    world w = world_open();
    arcp_error *error;
    arcp_client *client = (arcp_client *)&w;
    arcp_runtime *runtime = (arcp_runtime *)&w;
    arcp_item item;
    char *text;
    bool ended;
    EXPECT(ARCP_NULL_ARGUMENT, arcp_core_new(1, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_new(NULL, CLIENT, &client, &error));
    CHECK(client == NULL);
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_new(w.core, NULL, &client, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_connect(w.client, w.port, 1, NULL, "good", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_submit(w.client, NULL, 1, "{}", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_submit(NULL, w.port, 1, "{}", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_cancel_job(w.client, NULL, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_job_result(NULL, w.port, 1, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_job_next_batch(NULL, w.port, 1, 1, NULL, &ended, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_port_next(w.port, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_port_next(NULL, &item, &error));
    CHECK(item.kind == ARCP_ITEM_NONE);
    EXPECT(ARCP_NULL_ARGUMENT, arcp_port_wait(NULL, 0, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_runtime_register_agent(w.runtime, w.agents, NULL, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_runtime_new(w.core, RUNTIME, NULL, 1, &runtime, &error));
    CHECK(runtime == NULL);
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_complete(NULL, "1", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_call_function(NULL, "{}", &text, &error));
    CHECK(text == NULL);
    arcp_result result = arcp_transport_connect(w.core, w.port, 1, NULL, NULL, &error);
    CHECK_TEXT(arcp_error_message(error), "url is NULL");
    EXPECT(ARCP_NULL_ARGUMENT, result);
    CHECK(arcp_client_submit(NULL, NULL, 0, NULL, NULL) == ARCP_NULL_ARGUMENT);
    CHECK(arcp_job_id(NULL) == NULL && arcp_invocation_input(NULL) == NULL && arcp_listener_url(NULL) == NULL);
    CHECK(arcp_error_message(NULL) == NULL && arcp_error_result(NULL) == ARCP_OK && arcp_port_fd(NULL) == -1);
    CHECK(!arcp_client_has_feature(NULL, NULL) && arcp_event_batch_events(NULL, NULL) == NULL);
    arcp_core_free(NULL), arcp_port_free(NULL), arcp_client_free(NULL), arcp_job_free(NULL), arcp_runtime_free(NULL);
    arcp_invocation_free(NULL), arcp_verification_free(NULL), arcp_transport_free(NULL), arcp_listener_free(NULL);
    arcp_error_free(NULL), arcp_event_batch_free(NULL), arcp_string_free(NULL), arcp_item_clear(NULL);
    arcp_port_close(NULL), arcp_listener_close(NULL), arcp_core_shutdown(NULL, 0), arcp_client_ack(NULL, 1);
    world_free(&w);
}

static void test_bad_json(void) {
    world w = world_open();
    arcp_error *error;
    arcp_client *client;
    arcp_runtime *runtime;
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_new(w.core, "{", &client, &error));
    arcp_result result = arcp_client_new(w.core, "{\"name\":\"a\",\"version\":\"1\",\"colour\":1}", &client, &error);
    CHECK_HOLDS(arcp_error_message(error), "colour");
    CHECK_TEXT(arcp_error_code(error), "");
    EXPECT(ARCP_BAD_ARGUMENT, result);
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_new(w.core, "{\"name\":\"\xff\"}", &client, &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_submit(w.client, w.port, 1, "[]", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_submit(w.client, w.port, 1, "{\"agent\":\"echo\",\"input\":}", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_submit(w.client, w.port, 1, "{\"input\":1}", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_subscribe(w.client, w.port, 1, "", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_runtime_new(w.core, "{\"name\":\"a\",\"version\":\"1\",\"max_concurrent_jobs\":0}", NULL, 0, &runtime, &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_transport_connect(w.core, w.port, 1, "ws://127.0.0.1", "{\"colour\":1}", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_core_log_to(w.core, w.port, 7, &error));
    EXPECT(ARCP_INVALID_REQUEST, arcp_runtime_register_agent(w.runtime, w.agents, "Not A Name", NULL, &error));
    world_free(&w);
}

static void test_functions(void) {
    arcp_error *error;
    char *text;
    EXPECT(ARCP_OK, arcp_call_function("parse_agent_ref", "{\"text\":\"echo@1.0\"}", &text, &error));
    CHECK_TEXT(text, "{\"name\":\"echo\",\"version\":\"1.0\"}");
    arcp_string_free(text);
    EXPECT(ARCP_INVALID_REQUEST, arcp_call_function("parse_agent_ref", "{\"text\":\"@\"}", &text, &error));
    CHECK(text == NULL);
    EXPECT(ARCP_BAD_ARGUMENT, arcp_call_function("no_such", "{}", &text, &error));
}

static bool readable(int fd, int timeout_ms) {
    struct pollfd one = {.fd = fd, .events = POLLIN};
    return poll(&one, 1, timeout_ms) == 1 && (one.revents & POLLIN) != 0;
}

static void test_descriptor(void) {
    world w = world_open();
    arcp_error *error;
    arcp_port *port;
    arcp_item item;
    EXPECT(ARCP_OK, arcp_port_new(w.core, NULL, NULL, &port, &error));
    int fd = arcp_port_fd(port);
    CHECK(fd >= 0 && fd == arcp_port_fd(port) && !readable(fd, 0));
    for (uint64_t call = 1; call <= 3; call++) {
        EXPECT(ARCP_OK, arcp_client_submit(w.client, port, call, "{\"agent\":\"echo\"}", &error));
    }
    for (int taken = 0; taken < 3; taken++) {
        CHECK(readable(fd, WAIT_MS) && readable(fd, 0));
        EXPECT(ARCP_OK, arcp_port_next(port, &item, &error));
        CHECK(item.kind == ARCP_ITEM_COMPLETED && item.job != NULL);
        arcp_item_clear(&item);
        arcp_item_clear(&item);
    }
    EXPECT(ARCP_OK, arcp_port_next(port, &item, &error));
    CHECK(item.kind == ARCP_ITEM_NONE && !readable(fd, 0));
    /* A descriptor asked for late shows what waits already. */
    EXPECT(ARCP_OK, arcp_client_submit(w.client, w.port, 900, "{\"agent\":\"echo\"}", &error));
    EXPECT(ARCP_OK, arcp_port_wait(w.port, WAIT_MS, &error));
    CHECK(readable(arcp_port_fd(w.port), WAIT_MS));
    arcp_port_free(port);
    world_free(&w);
}

typedef struct {
    int pipe[2];
    arcp_port *to_free;
} woken;

static void wake(void *user_data) {
    woken *state = user_data;
    if (state->to_free != NULL) {
        arcp_port_free(state->to_free);
        state->to_free = NULL;
    }
    if (write(state->pipe[1], "w", 1) != 1) {
        abort();
    }
}

static void test_callback(void) {
    world w = world_open();
    arcp_error *error;
    woken state = {0};
    arcp_port *port;
    arcp_item item;
    char byte;
    CHECK(pipe(state.pipe) == 0);
    EXPECT(ARCP_OK, arcp_port_new(w.core, wake, &state, &port, &error));
    for (uint64_t call = 1; call <= 2; call++) {
        EXPECT(ARCP_OK, arcp_client_submit(w.client, port, call, "{\"agent\":\"echo\"}", &error));
        CHECK(readable(state.pipe[0], WAIT_MS) && read(state.pipe[0], &byte, 1) == 1);
        EXPECT(ARCP_OK, arcp_port_next(port, &item, &error));
        CHECK(item.kind == ARCP_ITEM_COMPLETED && item.number == call);
        arcp_item_clear(&item);
    }
    /* The port is freed from inside its own callback. */
    state.to_free = port;
    EXPECT(ARCP_OK, arcp_client_submit(w.client, port, 3, "{\"agent\":\"echo\"}", &error));
    CHECK(readable(state.pipe[0], WAIT_MS));
    world_free(&w);
    CHECK(state.to_free == NULL && close(state.pipe[0]) == 0 && close(state.pipe[1]) == 0);
}

/* Every order of the five: each object is freed while those it came from or works with are gone or still there. */
static void test_free_in_any_order(void) {
    for (int start = 0; start < 5; start++) {
        for (int step = 1; step < 5; step++) {
            world w = world_open();
            seen events[MAX_EVENTS];
            bool ended;
            arcp_job *job = submit(&w, "{\"agent\":\"sleeper\"}");
            CHECK(take_events(&w, job, events, 1, &ended) == 1);
            arcp_port_close(w.agents);
            pthread_join(w.thread, NULL);
            for (int i = 0, which = start; i < 5; i++, which = (which + step) % 5) {
                switch (which) {
                    case 0: arcp_core_free(w.core); break;
                    case 1: arcp_port_free(w.port); break;
                    case 2: arcp_client_free(w.client); break;
                    case 3: arcp_runtime_free(w.runtime); break;
                    case 4: arcp_job_free(job); break;
                }
            }
            arcp_port_free(w.agents);
        }
    }
}

static void test_close_twice(void) {
    world w = world_open();
    arcp_error *error;
    char text[64];
    arcp_job *job = submit(&w, "{\"agent\":\"sleeper\"}");
    for (int i = 0; i < 2; i++) {
        uint64_t call = ++w.calls;
        EXPECT(ARCP_OK, arcp_client_close(w.client, w.port, call, NULL, &error));
        EXPECT(ARCP_OK, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
    }
    EXPECT(ARCP_CLOSED, result_of(&w, job, text, sizeof text, &error));
    uint64_t call = ++w.calls;
    EXPECT(ARCP_OK, arcp_client_closed(w.client, w.port, call, &error));
    EXPECT(ARCP_CLOSED, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
    for (int i = 0; i < 2; i++) {
        call = ++w.calls;
        EXPECT(ARCP_OK, arcp_runtime_shutdown(w.runtime, w.port, call, "the runtime stops", 100, &error));
        EXPECT(ARCP_OK, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
    }
    arcp_core_shutdown(w.core, 1000);
    arcp_core_shutdown(w.core, 1000);
    EXPECT(ARCP_CLOSED, arcp_client_submit(w.client, w.port, 1, "{\"agent\":\"echo\"}", &error));
    arcp_port_close(w.port);
    arcp_port_close(w.port);
    EXPECT(ARCP_CLOSED, arcp_port_wait(w.port, -1, &error));
    arcp_job_free(job);
    world_free(&w);
}

static void test_host_verifier(void) {
    world w = world_new(true);
    arcp_error *error;
    EXPECT(ARCP_OK, world_connect(&w, "good", &w.client, &error));
    arcp_client *refused;
    arcp_result result = world_connect(&w, "secret-token", &refused, &error);
    CHECK_HOLDS(arcp_error_message(error), "not you");
    EXPECT(ARCP_UNAUTHENTICATED, result);
    arcp_client_free(refused);
    world_free(&w);
}

static void test_websocket(void) {
    world w = world_new(false);
    arcp_error *error;
    arcp_item bound, connected;
    char text[256];
    EXPECT(ARCP_OK, arcp_listener_bind(w.core, w.port, 1, "{\"port\":0}", &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, 1, WAIT_MS, &bound, &error));
    EXPECT(ARCP_OK, arcp_runtime_serve(w.runtime, w.port, 2, bound.listener, &error));
    EXPECT(ARCP_OK, arcp_transport_connect(w.core, w.port, 3, arcp_listener_url(bound.listener), NULL, &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, 3, WAIT_MS, &connected, &error));
    EXPECT(ARCP_OK, arcp_client_new(w.core, CLIENT, &w.client, &error));
    EXPECT(ARCP_OK, arcp_client_connect(w.client, w.port, 4, connected.transport, "good", &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, 4, WAIT_MS, NULL, &error));
    EXPECT(ARCP_CLOSED, arcp_client_connect(w.client, w.port, 5, connected.transport, "good", &error));
    w.calls = 5;
    arcp_job *job = submit(&w, "{\"agent\":\"echo\",\"input\":[1]}");
    EXPECT(ARCP_OK, result_of(&w, job, text, sizeof text, &error));
    CHECK_HOLDS(text, "[1]");
    EXPECT(ARCP_OK, arcp_transport_connect(w.core, w.port, 100, "http://127.0.0.1", NULL, &error));
    CHECK(arcp_port_wait_call(w.port, 100, WAIT_MS, NULL, &error) != ARCP_OK && arcp_error_message(error)[0] != '\0');
    arcp_error_free(error);
    arcp_port *logs;
    char elsewhere[128];
    EXPECT(ARCP_OK, arcp_port_new(w.core, NULL, NULL, &logs, &error));
    EXPECT(ARCP_OK, arcp_core_log_to(w.core, logs, ARCP_LOG_DEBUG, &error));
    snprintf(elsewhere, sizeof elsewhere, "%s/elsewhere", arcp_listener_url(bound.listener));
    EXPECT(ARCP_OK, arcp_transport_connect(w.core, w.port, 101, elsewhere, NULL, &error));
    EXPECT(ARCP_TRANSPORT, arcp_port_wait_call(w.port, 101, WAIT_MS, NULL, &error));
    EXPECT(ARCP_OK, arcp_port_wait(logs, WAIT_MS, &error));
    arcp_item log;
    EXPECT(ARCP_OK, arcp_port_next(logs, &log, &error));
    CHECK(log.kind == ARCP_ITEM_LOG && log.level >= ARCP_LOG_DEBUG && log.text[0] != '\0');
    CHECK_HOLDS(log.cause, "arcp");
    arcp_item_clear(&log);
    arcp_port_free(logs);
    arcp_listener_close(bound.listener);
    arcp_listener_close(bound.listener);
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, 2, WAIT_MS, NULL, &error));
    arcp_item_clear(&bound);
    arcp_item_clear(&connected);
    arcp_job_free(job);
    world_free(&w);
}

/* A child cannot use what its parent made, and says so instead of hanging. */
static void test_fork(void) {
    world w = world_open();
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        arcp_item item;
        bool refused = arcp_client_submit(w.client, w.port, 1, "{\"agent\":\"echo\"}", NULL) == ARCP_FORKED &&
                       arcp_port_wait(w.port, -1, NULL) == ARCP_FORKED &&
                       arcp_port_next(w.port, &item, NULL) == ARCP_FORKED;
        arcp_port_free(w.port);
        arcp_core_shutdown(w.core, 1000);
        _exit(refused ? 0 : 1);
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
    world_free(&w);
}

int main(void) {
    static const test tests[] = {
        {"names", test_names},
        {"echo", test_echo},
        {"events", test_events},
        {"cancel", test_cancel},
        {"agent errors", test_agent_errors},
        {"lease", test_lease},
        {"subscribe", test_subscribe},
        {"null arguments", test_null_arguments},
        {"bad JSON", test_bad_json},
        {"functions", test_functions},
        {"descriptor", test_descriptor},
        {"callback", test_callback},
        {"free in any order", test_free_in_any_order},
        {"close twice", test_close_twice},
        {"host verifier", test_host_verifier},
        {"websocket", test_websocket},
        {"fork", test_fork},
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
