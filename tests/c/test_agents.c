/*
 * What an agent and a client may do beyond one job and its events: results in parts, children, listings, signed tokens,
 * tokens that are asked for. Agents run on a thread of their own behind their own port.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <pthread.h>
#include <stdlib.h>

/* More chunks of one byte than a client may leave unacknowledged. */
enum { LARGE = 700001, SMALL_CAP = 1000, DRIPS = 60000 };

static atomic_int waits;

static const char *const ME = "{\"name\":\"test\",\"version\":\"1\"}";

/* Signs the tokens of `test_signed_tokens` with HS256. */
static const char *const JWT_OPTIONS = "{\"secret\":\"0123456789abcdef0123456789abcdef\"}";

/* Agents --------------------------------------------------------------------------------------------------------- */

static uint64_t agent_calls = 1000000;

/* What a call of an agent's completes with; the item is the caller's to clear. */
static arcp_item agent_wait(arcp_port *port, uint64_t call, arcp_result expected) {
    arcp_error *error;
    arcp_item item;
    EXPECT(expected, arcp_port_wait_call(port, call, WAIT_MS, &item, &error));
    return item;
}

/* Writes all, waiting as it is told to. */
static void write_all(const arcp_invocation *job, arcp_port *port, const uint8_t *data, size_t length, bool is_text) {
    arcp_error *error;
    while (length > 0) {
        size_t taken;
        bool must_wait;
        if (!EXPECT(ARCP_OK, arcp_invocation_write_result(job, data, length, is_text, &taken, &must_wait, &error))) {
            return;
        }
        CHECK(taken <= length && (taken == length || must_wait));
        data += taken;
        length -= taken;
        if (must_wait) {
            waits++;
            uint64_t call = ++agent_calls;
            EXPECT(ARCP_OK, arcp_invocation_drained(job, port, call, &error));
            arcp_item item = agent_wait(port, call, ARCP_OK);
            arcp_item_clear(&item);
        }
    }
}

static uint8_t byte_at(size_t index) {
    return (uint8_t)(index * 31 + index / 256);
}

static void stream_bytes(const arcp_invocation *job, arcp_port *port) {
    arcp_error *error;
    char *id;
    size_t taken = 7;
    bool must_wait = true;
    uint8_t *data = malloc(LARGE);
    for (size_t i = 0; data != NULL && i < LARGE; i++) {
        data[i] = byte_at(i);
    }
    EXPECT(ARCP_INVALID_REQUEST, arcp_invocation_write_result(job, data, 1, false, &taken, &must_wait, &error));
    CHECK(taken == 0 && !must_wait);
    EXPECT(ARCP_INVALID_REQUEST, arcp_invocation_flush_result(job, &error));
    EXPECT(ARCP_INVALID_REQUEST, arcp_invocation_finish_result(job, NULL, &error));
    EXPECT(ARCP_OK, arcp_invocation_open_result(job, NULL, 0, &id, &error));
    CHECK(id != NULL && id[0] != '\0');
    arcp_string_free(id);
    EXPECT(ARCP_INVALID_REQUEST, arcp_invocation_open_result(job, NULL, 0, &id, &error));
    CHECK(id == NULL);
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_write_result(job, NULL, 1, false, &taken, &must_wait, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_write_result(job, data, 1, false, NULL, &must_wait, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_write_result(job, data, 1, false, &taken, NULL, &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_invocation_write_result(job, data, SIZE_MAX, false, &taken, &must_wait, &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_invocation_write_result(job, (const uint8_t *)"\xff", 1, true, &taken, &must_wait, &error));
    EXPECT(ARCP_OK, arcp_invocation_write_result(job, NULL, 0, false, &taken, &must_wait, &error));
    CHECK(taken == 0);
    write_all(job, port, data, LARGE, false);
    EXPECT(ARCP_OK, arcp_invocation_finish_result(job, "all of it", &error));
    EXPECT(ARCP_INVALID_REQUEST, arcp_invocation_finish_result(job, NULL, &error));
    EXPECT(ARCP_OK, arcp_invocation_complete(job, "null", &error));
    free(data);
}

static void stream_text(const arcp_invocation *job, arcp_port *port) {
    arcp_error *error;
    char *id;
    EXPECT(ARCP_OK, arcp_invocation_open_result(job, "res_of_mine", 5, &id, &error));
    CHECK_TEXT(id, "res_of_mine");
    arcp_string_free(id);
    write_all(job, port, (const uint8_t *)"h\xc3\xa9llo w\xc3\xb6rld", 13, true);
    EXPECT(ARCP_OK, arcp_invocation_flush_result(job, &error));
    write_all(job, port, (const uint8_t *)"!", 1, true);
    EXPECT(ARCP_OK, arcp_invocation_finish_result(job, NULL, &error));
    EXPECT(ARCP_OK, arcp_invocation_complete(job, "null", &error));
}

static void drip(const arcp_invocation *job, arcp_port *port) {
    static uint8_t data[DRIPS];
    memset(data, 'd', sizeof data);
    arcp_invocation_open_result(job, NULL, 1, NULL, NULL);
    write_all(job, port, data, sizeof data, true);
    arcp_invocation_finish_result(job, NULL, NULL);
    arcp_invocation_complete(job, "null", NULL);
}

/* The id of a child begun with this request. */
static void delegate(const arcp_invocation *job, arcp_port *port, const char *request, char *id, size_t size) {
    arcp_error *error;
    uint64_t call = ++agent_calls;
    EXPECT(ARCP_OK, arcp_invocation_delegate(job, port, call, request, &error));
    arcp_item item = agent_wait(port, call, ARCP_OK);
    const char *found = item.text != NULL ? strstr(item.text, "\"job_id\":\"") : NULL;
    CHECK(found != NULL);
    snprintf(id, size, "%.*s", found != NULL ? (int)strcspn(found + 10, "\"") : 0, found != NULL ? found + 10 : "");
    arcp_item_clear(&item);
}

/* Runs on a thread of its own: its children run on the agents' thread. Its calls complete at a port of its own. */
typedef struct {
    arcp_invocation *job;
    arcp_core *core;
    pthread_t thread;
} parent;

static void *run_parent(void *pointer) {
    parent *self = pointer;
    const arcp_invocation *job = self->job;
    arcp_error *error;
    arcp_port *port;
    char child[64];
    EXPECT(ARCP_OK, arcp_port_new(self->core, NULL, NULL, &port, &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_invocation_delegate(job, port, 1, "{}", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_invocation_delegate(job, port, 1, "{\"agent\":\"echo\",\"colour\":1}", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_delegate(job, NULL, 1, "{}", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_invocation_child_result(job, port, 1, "job_of_another", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_invocation_cancel_child(job, "job_of_another", NULL, &error));
    EXPECT(ARCP_OK, arcp_invocation_delegate(job, port, 2, "{\"agent\":\"refused\"}", &error));
    arcp_item item = agent_wait(port, 2, ARCP_PERMISSION_DENIED);
    EXPECT(ARCP_OK, arcp_invocation_delegate(job, port, 3, "{\"agent\":\"echo\",\"lease_request\":{\"fs.read\":[\"/**\"]}}", &error));
    item = agent_wait(port, 3, ARCP_LEASE_SUBSET_VIOLATION);

    delegate(job, port, "{\"agent\":\"echo\",\"input\":[1,2]}", child, sizeof child);
    for (uint64_t call = 4; call <= 5; call++) {
        EXPECT(ARCP_OK, arcp_invocation_child_result(job, port, call, child, &error));
        item = agent_wait(port, call, ARCP_OK);
        CHECK_TEXT(item.text, "[1,2]");
        arcp_item_clear(&item);
    }
    EXPECT(ARCP_OK, arcp_invocation_cancel_child(job, child, NULL, &error));

    delegate(job, port, "{\"agent\":\"waits\"}", child, sizeof child);
    EXPECT(ARCP_OK, arcp_invocation_child_result(job, port, 6, child, &error));
    EXPECT(ARCP_OK, arcp_invocation_cancel_child(job, child, "enough of you", &error));
    item = agent_wait(port, 6, ARCP_CANCELLED);
    EXPECT(ARCP_OK, arcp_invocation_complete(job, "\"two children\"", &error));
    arcp_port_free(port);
    arcp_invocation_free(self->job);
    return NULL;
}

typedef struct {
    arcp_core *core;
    arcp_port *port;
} agents;

static void *run_agents(void *pointer) {
    agents *self = pointer;
    arcp_invocation *waiting = NULL;
    parent parents[4];
    int count = 0;
    while (arcp_port_wait(self->port, -1, NULL) == ARCP_OK) {
        arcp_item item;
        while (arcp_port_next(self->port, &item, NULL) == ARCP_OK && item.kind != ARCP_ITEM_NONE) {
            const char *agent = item.kind == ARCP_ITEM_INVOKE ? arcp_invocation_agent(item.invocation) : "";
            if (strcmp(agent, "echo") == 0) {
                arcp_invocation_complete(item.invocation, arcp_invocation_input(item.invocation), NULL);
            } else if (strcmp(agent, "bytes") == 0) {
                stream_bytes(item.invocation, self->port);
            } else if (strcmp(agent, "text") == 0) {
                stream_text(item.invocation, self->port);
            } else if (strcmp(agent, "drip") == 0) {
                drip(item.invocation, self->port);
            } else if (strcmp(agent, "half") == 0) {
                arcp_invocation_open_result(item.invocation, NULL, 0, NULL, NULL);
                write_all(item.invocation, self->port, (const uint8_t *)"half", 4, true);
            } else if (strcmp(agent, "waits") == 0) {
                waiting = item.invocation;
                item.invocation = NULL;
            } else if (strcmp(agent, "parent") == 0 && count < 4) {
                parents[count] = (parent){.job = item.invocation, .core = self->core};
                item.invocation = NULL;
                CHECK(pthread_create(&parents[count].thread, NULL, run_parent, &parents[count]) == 0);
                count++;
            } else if (item.kind == ARCP_ITEM_CANCEL && waiting != NULL && item.number == arcp_invocation_id(waiting)) {
                CHECK_TEXT(item.text, "enough of you");
                arcp_invocation_cancelled(waiting, NULL);
                arcp_invocation_free(waiting);
                waiting = NULL;
            }
            arcp_item_clear(&item);
        }
    }
    for (int i = 0; i < count; i++) {
        pthread_join(parents[i].thread, NULL);
    }
    arcp_invocation_free(waiting);
    return NULL;
}

/* A world: runtime and client, joined ---------------------------------------------------------------------------- */

typedef struct {
    arcp_core *core;
    arcp_port *port;
    arcp_runtime *runtime;
    arcp_client *client;
    agents agents;
    pthread_t thread;
    uint64_t calls;
} world;

/* With `jwt`, the runtime takes signed tokens. */
static void world_new(world *w, const char *jwt) {
    static const arcp_token tokens[] = {{"good", "alice"}};
    static const char *const names[] = {"echo", "bytes", "text", "drip", "half", "waits", "parent"};
    arcp_error *error;
    *w = (world){0};
    EXPECT(ARCP_OK, arcp_core_new(2, &w->core, &error));
    EXPECT(ARCP_OK, arcp_port_new(w->core, NULL, NULL, &w->port, &error));
    EXPECT(ARCP_OK, arcp_port_new(w->core, NULL, NULL, &w->agents.port, &error));
    if (jwt != NULL) {
        EXPECT(ARCP_OK, arcp_runtime_with_jwt_new(w->core, ME, jwt, &w->runtime, &error));
    } else {
        EXPECT(ARCP_OK, arcp_runtime_new(w->core, ME, tokens, 1, &w->runtime, &error));
    }
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *options = i % 2 == 0 ? NULL : "{\"restartable\":true}";
        EXPECT(ARCP_OK, arcp_runtime_register_agent_with(w->runtime, w->agents.port, names[i], NULL, options, &error));
    }
    w->agents.core = w->core;
    CHECK(pthread_create(&w->thread, NULL, run_agents, &w->agents) == 0);
}

/* Begins to connect a new client of these options; what comes of it completes as `*call`. `token` NULL asks on the port. */
static arcp_client *world_connecting(world *w, const char *options, const char *token, uint64_t *call) {
    arcp_error *error;
    arcp_client *client;
    arcp_transport *ours, *theirs;
    EXPECT(ARCP_OK, arcp_transport_pair_new(&ours, &theirs, &error));
    EXPECT(ARCP_OK, arcp_client_new(w->core, options, &client, &error));
    EXPECT(ARCP_OK, arcp_runtime_accept(w->runtime, w->port, ++w->calls, theirs, &error));
    *call = ++w->calls;
    if (token != NULL) {
        EXPECT(ARCP_OK, arcp_client_connect(client, w->port, *call, ours, token, &error));
    } else {
        EXPECT(ARCP_OK, arcp_client_connect_asking(client, w->port, *call, ours, w->port, NULL, &error));
    }
    arcp_transport_free(ours);
    arcp_transport_free(theirs);
    return client;
}

static void world_open(world *w) {
    arcp_error *error;
    uint64_t call;
    world_new(w, NULL);
    w->client = world_connecting(w, ME, "good", &call);
    EXPECT(ARCP_OK, arcp_port_wait_call(w->port, call, WAIT_MS, NULL, &error));
}

static void world_free(world *w) {
    arcp_port_close(w->agents.port);
    pthread_join(w->thread, NULL);
    arcp_core_shutdown(w->core, 1000);
    arcp_client_free(w->client);
    arcp_runtime_free(w->runtime);
    arcp_port_free(w->agents.port);
    arcp_port_free(w->port);
    arcp_core_free(w->core);
}

static arcp_job *submit(world *w, const arcp_client *client, const char *request) {
    arcp_error *error;
    arcp_item item;
    uint64_t call = ++w->calls;
    EXPECT(ARCP_OK, arcp_client_submit(client, w->port, call, request, &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w->port, call, WAIT_MS, &item, &error));
    arcp_job *job = item.job;
    item.job = NULL;
    arcp_item_clear(&item);
    return job;
}

static arcp_result bytes_of(world *w, const arcp_job *job, arcp_item *item, arcp_error **error) {
    uint64_t call = ++w->calls;
    CHECK(arcp_job_result_bytes(job, w->port, call, NULL) == ARCP_OK);
    return arcp_port_wait_call(w->port, call, WAIT_MS, item, error);
}

/* Tests ---------------------------------------------------------------------------------------------------------- */

static void test_streamed_results(void) {
    world w;
    arcp_error *error;
    arcp_item item;
    world_open(&w);
    arcp_job *job = submit(&w, w.client, "{\"agent\":\"bytes\"}");
    for (int i = 0; i < 2; i++) {
        EXPECT(ARCP_OK, bytes_of(&w, job, &item, &error));
        CHECK(item.data != NULL && item.data_length == LARGE && item.text == NULL);
        size_t same_bytes = 0;
        while (same_bytes < item.data_length && item.data[same_bytes] == byte_at(same_bytes)) {
            same_bytes++;
        }
        CHECK(same_bytes == LARGE);
        /* Kept beyond the item. */
        uint8_t *data = item.data;
        size_t length = item.data_length;
        item.data = NULL;
        arcp_item_clear(&item);
        CHECK(item.data == NULL && item.data_length == 0 && data[length - 1] == byte_at(length - 1));
        arcp_data_free(data, length);
    }
    arcp_job_free(job);

    job = submit(&w, w.client, "{\"agent\":\"text\"}");
    EXPECT(ARCP_OK, bytes_of(&w, job, &item, &error));
    CHECK(item.data_length == 14 && memcmp(item.data, "h\xc3\xa9llo w\xc3\xb6rld!", 14) == 0);
    arcp_item_clear(&item);
    arcp_item_clear(&item);
    arcp_job_free(job);

    job = submit(&w, w.client, "{\"agent\":\"echo\",\"input\":{\"a\":1}}");
    EXPECT(ARCP_OK, bytes_of(&w, job, &item, &error));
    CHECK(item.data_length == 7 && memcmp(item.data, "{\"a\":1}", 7) == 0);
    arcp_item_clear(&item);
    arcp_job_free(job);

    job = submit(&w, w.client, "{\"agent\":\"half\"}");
    EXPECT(ARCP_INTERNAL_ERROR, bytes_of(&w, job, &item, &error));
    CHECK(item.kind == ARCP_ITEM_NONE && item.data == NULL);
    arcp_job_free(job);
    world_free(&w);
}

/* Options of a client are passed on: a result longer than it may put together is refused. */
static void test_result_too_long(void) {
    world w;
    arcp_error *error;
    arcp_item item;
    uint64_t call;
    world_open(&w);
    char options[128];
    snprintf(options, sizeof options, "{\"name\":\"test\",\"version\":\"1\",\"reconnect\":false,\"max_result_bytes\":%d}", SMALL_CAP);
    arcp_client *careful = world_connecting(&w, options, "good", &call);
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
    arcp_job *job = submit(&w, careful, "{\"agent\":\"bytes\"}");
    arcp_result result = bytes_of(&w, job, &item, &error);
    CHECK(result != ARCP_OK && result != ARCP_WAIT_TIMEOUT);
    CHECK_HOLDS(arcp_error_message(error), "1000");
    arcp_error_free(error);
    arcp_job_free(job);
    arcp_client_free(careful);
    world_free(&w);
}

/* A writer is told to wait while its client does not acknowledge, and goes on when it does. */
static void test_a_writer_waits_for_its_client(void) {
    world w;
    arcp_error *error;
    arcp_item item;
    uint64_t call;
    world_open(&w);
    arcp_client *lazy = world_connecting(&w, "{\"name\":\"test\",\"version\":\"1\",\"auto_ack\":false}", "good", &call);
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
    waits = 0;
    arcp_job *job = submit(&w, lazy, "{\"agent\":\"drip\"}");
    call = ++w.calls;
    EXPECT(ARCP_OK, arcp_job_result_bytes(job, w.port, call, &error));
    arcp_result waited = ARCP_WAIT_TIMEOUT;
    for (int i = 0; waits == 0 && waited == ARCP_WAIT_TIMEOUT && i < WAIT_MS / 50; i++) {
        waited = arcp_port_wait_call(w.port, call, 50, NULL, NULL);
    }
    CHECK(waits > 0 && waited == ARCP_WAIT_TIMEOUT);
    arcp_result result = ARCP_WAIT_TIMEOUT;
    error = NULL;
    for (int i = 0; result == ARCP_WAIT_TIMEOUT && i < WAIT_MS / 50; i++) {
        arcp_client_ack(lazy, arcp_client_latest_event_seq(lazy));
        arcp_error_free(error);
        result = arcp_port_wait_call(w.port, call, 50, &item, &error);
    }
    EXPECT(ARCP_OK, result);
    CHECK(item.data_length == DRIPS);
    arcp_item_clear(&item);
    arcp_job_free(job);
    arcp_client_free(lazy);
    world_free(&w);
}

static void test_children(void) {
    world w;
    arcp_error *error;
    arcp_item item;
    world_open(&w);
    arcp_job *job = submit(&w, w.client, "{\"agent\":\"parent\",\"lease_request\":{\"agent.delegate\":[\"echo\",\"waits\"]}}");
    uint64_t call = ++w.calls;
    EXPECT(ARCP_OK, arcp_job_result(job, w.port, call, &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, call, WAIT_MS, &item, &error));
    CHECK_HOLDS(item.text, "two children");
    arcp_item_clear(&item);
    arcp_job_free(job);
    world_free(&w);
}

static void test_listing(void) {
    world w;
    arcp_error *error;
    arcp_item item;
    world_open(&w);
    arcp_job *job = submit(&w, w.client, "{\"agent\":\"echo\"}");
    EXPECT(ARCP_OK, bytes_of(&w, job, &item, &error));
    arcp_item_clear(&item);
    const char *const requests[] = {NULL, "{\"filter\":{\"status\":[\"success\"],\"agent\":\"echo\"},\"limit\":1}"};
    for (int i = 0; i < 2; i++) {
        EXPECT(ARCP_OK, arcp_client_list_jobs(w.client, w.port, 100 + (uint64_t)i, requests[i], &error));
        EXPECT(ARCP_OK, arcp_port_wait_call(w.port, 100 + (uint64_t)i, WAIT_MS, &item, &error));
        CHECK_HOLDS(item.text, "\"jobs\":[{");
        CHECK_HOLDS(item.text, arcp_job_id(job));
        arcp_item_clear(&item);
    }
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_list_jobs(w.client, w.port, 1, "{\"colour\":1}", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_list_jobs(w.client, w.port, 1, "{\"filter\":{\"created_after\":\"now\"}}", &error));
    arcp_job_free(job);
    world_free(&w);
}

/* The next item of this kind on the port; others are cleared. */
static arcp_item next_of(const arcp_port *port, arcp_item_kind kind) {
    arcp_item item = {0};
    while (item.kind != kind && arcp_port_wait(port, WAIT_MS, NULL) == ARCP_OK) {
        arcp_item_clear(&item);
        arcp_port_next(port, &item, NULL);
    }
    CHECK(item.kind == kind);
    return item;
}

static void test_token_is_asked_for(void) {
    world w;
    arcp_error *error;
    uint64_t call;
    world_new(&w, NULL);
    w.client = world_connecting(&w, ME, NULL, &call);
    arcp_item item = next_of(w.port, ARCP_ITEM_TOKEN);
    CHECK(item.token_request != NULL);
    EXPECT(ARCP_NULL_ARGUMENT, arcp_token_answer(item.token_request, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_token_refuse(item.token_request, NULL, NULL, &error));
    EXPECT(ARCP_OK, arcp_token_answer(item.token_request, "good", &error));
    /* The first answer counts. */
    EXPECT(ARCP_OK, arcp_token_refuse(item.token_request, NULL, "too late", &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
    arcp_item_clear(&item);
    arcp_item_clear(&item);

    arcp_client *refused = world_connecting(&w, ME, NULL, &call);
    item = next_of(w.port, ARCP_ITEM_TOKEN);
    EXPECT(ARCP_OK, arcp_token_refuse(item.token_request, NULL, "signed out", &error));
    arcp_result result = arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error);
    CHECK_HOLDS(arcp_error_message(error), "signed out");
    EXPECT(ARCP_UNAUTHENTICATED, result);
    arcp_item_clear(&item);
    arcp_client_free(refused);

    /* Kept beyond the item, then freed without an answer. */
    arcp_client *ignored = world_connecting(&w, ME, NULL, &call);
    item = next_of(w.port, ARCP_ITEM_TOKEN);
    arcp_token_request *kept = item.token_request;
    item.token_request = NULL;
    arcp_item_clear(&item);
    arcp_token_request_free(kept);
    EXPECT(ARCP_CLOSED, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
    arcp_client_free(ignored);
    world_free(&w);
}

static void test_signed_tokens(void) {
    static const char *const wrong[] = {"{", "{}", "{\"secret\":\"short\"}", "{\"secret\":7}"};
    static const char *const alice = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6NDEwMjQ0NDgwMH0.DvdDttFvdgTOXtC2L5P1zfs2bIMtiEwN3al4EAHYyf8";
    world w;
    arcp_error *error;
    uint64_t call;
    world_new(&w, JWT_OPTIONS);
    w.client = world_connecting(&w, ME, alice, &call);
    EXPECT(ARCP_OK, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
    const char *const others[] = {"good", "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJhbGljZSIsImV4cCI6MX0._aM59rCriYvqGLnSI320izBiU68yPrzqMN6LzqWFz5M"};
    for (int i = 0; i < 2; i++) {
        arcp_client *refused = world_connecting(&w, ME, others[i], &call);
        EXPECT(ARCP_UNAUTHENTICATED, arcp_port_wait_call(w.port, call, WAIT_MS, NULL, &error));
        arcp_client_free(refused);
    }
    for (int i = 0; i < 4; i++) {
        arcp_runtime *runtime = w.runtime;
        arcp_result result = arcp_runtime_with_jwt_new(w.core, ME, wrong[i], &runtime, &error);
        CHECK(runtime == NULL && (error == NULL || strstr(arcp_error_message(error), "short") == NULL));
        EXPECT(ARCP_BAD_ARGUMENT, result);
    }
    world_free(&w);
}

static void test_wrong_arguments(void) {
    world w;
    arcp_error *error;
    arcp_transport *ours, *theirs;
    arcp_job *job = (arcp_job *)&w;
    arcp_runtime *runtime;
    char *text = (char *)&w;
    uint64_t call;
    world_open(&w);
    CHECK(ARCP_ITEM_LOG == 7 && ARCP_ITEM_TOKEN == 8);
    EXPECT(ARCP_NULL_ARGUMENT, arcp_runtime_with_jwt_new(w.core, ME, NULL, &runtime, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_runtime_with_jwt_new(w.core, ME, JWT_OPTIONS, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_runtime_with_jwt_new(NULL, ME, JWT_OPTIONS, &runtime, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_runtime_register_agent_with(w.runtime, NULL, "a", NULL, NULL, &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_runtime_register_agent_with(w.runtime, w.port, "a", NULL, "{\"restartable\":1}", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_runtime_register_agent_with(w.runtime, w.port, "a", NULL, "{\"colour\":1}", &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_runtime_new(w.core, "{\"name\":\"a\",\"version\":\"1\",\"synchronous\":\"never\"}", NULL, 0, &runtime, &error));

    EXPECT(ARCP_OK, arcp_transport_pair_new(&ours, &theirs, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_connect_asking(w.client, w.port, 1, ours, NULL, NULL, &error));
    EXPECT(ARCP_BAD_ARGUMENT, arcp_client_connect_asking(w.client, w.port, 1, ours, w.port, "{}", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_connect_resuming(w.client, w.port, 1, ours, "good", NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_connect_resuming(w.client, w.port, 1, ours, NULL, "{}", &error));
    arcp_result result = arcp_client_connect_resuming(w.client, w.port, 1, ours, "good", "{\"session_id\":\"s\"}", &error);
    CHECK_HOLDS(arcp_error_message(error), "resume_token");
    EXPECT(ARCP_BAD_ARGUMENT, result);
    arcp_transport_free(ours);
    arcp_transport_free(theirs);

    EXPECT(ARCP_INVALID_REQUEST, arcp_client_job(w.client, "job_1", &job, &error));
    CHECK(job == NULL);
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_job(w.client, NULL, &job, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_job(w.client, "job_1", NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_jobs(NULL, &text, &error));
    CHECK(text == NULL);
    EXPECT(ARCP_OK, arcp_client_jobs(w.client, &text, &error));
    CHECK(text != NULL && text[0] == '[');
    arcp_string_free(text);
    EXPECT(ARCP_NULL_ARGUMENT, arcp_client_list_jobs(w.client, NULL, 1, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_job_result_bytes(NULL, w.port, 1, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_open_result(NULL, NULL, 0, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_flush_result(NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_finish_result(NULL, NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_delegate(NULL, w.port, 1, "{}", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_child_result(NULL, w.port, 1, "job_1", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_invocation_cancel_child(NULL, "job_1", NULL, &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_token_answer(NULL, "good", &error));
    EXPECT(ARCP_NULL_ARGUMENT, arcp_token_refuse(NULL, NULL, "no", &error));
    arcp_token_request_free(NULL), arcp_data_free(NULL, 7);

    /* A token request outlives the client that asks and the port it came through. */
    arcp_client *asking = world_connecting(&w, ME, NULL, &call);
    arcp_item item = next_of(w.port, ARCP_ITEM_TOKEN);
    arcp_client_free(asking);
    world_free(&w);
    EXPECT(ARCP_OK, arcp_token_answer(item.token_request, "good", &error));
    arcp_item_clear(&item);
}

int main(void) {
    static const test tests[] = {
        {"streamed results", test_streamed_results},
        {"result too long", test_result_too_long},
        {"a writer waits for its client", test_a_writer_waits_for_its_client},
        {"children", test_children},
        {"listing", test_listing},
        {"a token is asked for", test_token_is_asked_for},
        {"signed tokens", test_signed_tokens},
        {"wrong arguments", test_wrong_arguments},
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
