/*
 * The C shim (tests/shims/README.md): commands on standard input, answers on standard output, all on one thread, which
 * waits for its input and the library's ports with poll(). A call's number is the address of what waits for it.
 */
#define _POSIX_C_SOURCE 200809L

#include <arcp.h>

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "agents.h"
#include "json.h"

enum { EVENTS_AT_ONCE = 64, EXIT_MS = 500 };

static arcp_core *core;
static arcp_port *port, *agents;

static void *make(size_t size) {
    void *made = calloc(1, size);
    if (made == NULL) {
        abort();
    }
    return made;
}

static uint64_t number_of(const void *what) {
    return (uint64_t)(uintptr_t)what;
}

/* Answers -------------------------------------------------------------------------------------------------------- */

static void answer(long id, const char *member, const char *value) {
    printf("{\"id\":%ld,\"%s\":%s}\n", id, member, value);
    fflush(stdout);
}

static void answer_text(long id, text *value) {
    answer(id, "ok", value->at);
    free(value->at);
}

static void answer_error(long id, const char *code, const char *message, bool retryable, const char *details) {
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

static void answer_bad(long id, const char *message) {
    answer_error(id, "BAD_ARGUMENT", message, false, NULL);
}

/* The code of a failure on this side, in the harness's words. */
static const char *local_code(arcp_result result) {
    switch (result) {
        case ARCP_CLOSED: return "CLOSED";
        case ARCP_TRANSPORT: return "TRANSPORT";
        case ARCP_WAIT_TIMEOUT: return "TIMEOUT_LOCAL";
        case ARCP_BAD_ARGUMENT:
        case ARCP_NULL_ARGUMENT: return "BAD_ARGUMENT";
        default: return arcp_result_name(result);
    }
}

static void answer_failure(long id, const arcp_error *error) {
    const char *code = arcp_error_code(error);
    answer_error(id, *code != '\0' ? code : local_code(arcp_error_result(error)), arcp_error_message(error),
                 arcp_error_retryable(error), arcp_error_details(error));
}

/* Handles: text the harness repeats, a letter and an index ------------------------------------------------------- */

typedef struct {
    void **all;
    size_t count;
} handles;

static size_t handles_add(handles *table, void *what) {
    table->all = realloc(table->all, (table->count + 1) * sizeof *table->all);
    if (table->all == NULL) {
        abort();
    }
    table->all[table->count] = what;
    return table->count++;
}

static void *handles_find(const handles *table, json command, const char *member) {
    char *name = json_string(json_member(command, member));
    char *end = NULL;
    size_t index = name != NULL && *name != '\0' ? strtoul(name + 1, &end, 10) : table->count;
    bool found = end != NULL && *end == '\0' && index < table->count;
    free(name);
    return found ? table->all[index] : NULL;
}

static void add_handle(text *out, const char *member, char letter, size_t index) {
    char name[64];
    snprintf(name, sizeof name, "\"%s\":\"%c%zu\"", member, letter, index);
    text_add(out, name);
}

typedef struct {
    arcp_client *client;
} session;

typedef struct waiter {
    long id, max; /* max below 0: all */
    struct waiter *next;
} waiter;

typedef struct {
    arcp_job *job;
    session *session;
    waiter *waiters; /* `events` without an answer, first come first served */
    text *events;    /* as JSON, not handed out yet */
    size_t count;
    bool waiting, ended; /* a READY is due; nothing more comes */
} job;

typedef struct {
    arcp_runtime *runtime;
    arcp_listener *listener;
} hosting;

static handles sessions, jobs, hostings;

/* Calls under way ------------------------------------------------------------------------------------------------ */

typedef struct call call;
struct call {
    long id;
    void (*then)(call *, arcp_item *); /* only called on success, unless it is `failed_too` */
    bool failed_too;
    void *subject;
    char *token, *resume; /* what a connection opens or takes up its session with */
    char *ended;          /* the library's text on how a job ended, whose bytes are asked for */
};

static call *call_new(long id, void (*then)(call *, arcp_item *), void *subject) {
    call *made = make(sizeof *made);
    *made = (call){.id = id, .then = then, .subject = subject};
    return made;
}

static void call_free(call *one) {
    free(one->token);
    free(one->resume);
    free(one->ended);
    free(one);
}

/* A call that could not be begun has its answer at once. `error` is read after the call beside it was made. */
static void begun(call *one, arcp_result result, arcp_error **error) {
    if (result != ARCP_OK) {
        answer_failure(one->id, *error);
        call_free(one);
    }
    arcp_error_free(*error);
}

static void then_nothing(call *one, arcp_item *item) {
    (void)item;
    if (one->id >= 0) {
        answer(one->id, "ok", "{}");
    }
}

/* Client --------------------------------------------------------------------------------------------------------- */

static void then_welcome(call *one, arcp_item *item) {
    session *opened = one->subject;
    json welcome = json_parse(item->text);
    char *features;
    arcp_client_features(opened->client, &features, NULL);
    text out = {0};
    text_add(&out, "{");
    add_handle(&out, "session", 's', handles_add(&sessions, opened));
    text_add_member(&out, "session_id", json_member(welcome, "session_id"));
    text_add_member(&out, "features", json_parse(features));
    text_add_member(&out, "resume_token", json_member(welcome, "resume_token"));
    text_add(&out, "}");
    answer_text(one->id, &out);
    arcp_string_free(features);
}

static void then_transport(call *one, arcp_item *item) {
    arcp_error *error;
    session *opened = one->subject;
    call *next = call_new(one->id, then_welcome, opened);
    uint64_t number = number_of(next);
    arcp_result result =
        one->resume == NULL
            ? arcp_client_connect(opened->client, port, number, item->transport, one->token, &error)
            : arcp_client_connect_resuming(opened->client, port, number, item->transport, one->token, one->resume, &error);
    begun(next, result, &error);
}

static void do_connect(long id, json command) {
    session *opened = make(sizeof *opened);
    char *url = json_string(json_member(command, "url"));
    long timeout_ms = json_number(json_member(command, "timeout_ms"), -1);
    char handshake[64] = "", connect[64] = "";
    if (timeout_ms >= 0) {
        snprintf(handshake, sizeof handshake, ",\"handshake_timeout_sec\":%.3f", (double)timeout_ms / 1000);
        snprintf(connect, sizeof connect, "\"timeout_sec\":%.3f", (double)timeout_ms / 1000);
    }
    text options = {0};
    text_add(&options, "{\"name\":\"arcp-shim-c\",\"version\":\"1\"");
    text_add(&options, handshake);
    text_add_member(&options, "features", json_member(command, "features"));
    text_add_member(&options, "reconnect", json_member(command, "reconnect"));
    text_add(&options, "}");
    char transport_options[80];
    snprintf(transport_options, sizeof transport_options, "{%s}", connect);
    call *next = call_new(id, then_transport, opened);
    next->token = json_string(json_member(command, "token"));
    json resume = json_member(command, "resume");
    if (resume.at != NULL) {
        text copy = {0};
        text_add_json(&copy, resume);
        next->resume = copy.at;
    }
    arcp_error *error;
    arcp_result result = arcp_client_new(core, options.at, &opened->client, &error);
    if (result == ARCP_OK) {
        result = arcp_transport_connect(core, port, number_of(next), url, transport_options, &error);
    }
    begun(next, result, &error);
    free(options.at);
    free(url);
}

static size_t job_keep(session *owner, arcp_job *kept) {
    job *made = make(sizeof *made);
    made->job = kept;
    made->session = owner;
    return handles_add(&jobs, made);
}

/* Takes the job out of the item and gives its opening. */
static json job_take_over(session *owner, arcp_item *item, size_t *index) {
    json opening = json_parse(arcp_job_opening(item->job));
    *index = job_keep(owner, item->job);
    item->job = NULL;
    return opening;
}

static void then_submitted(call *one, arcp_item *item) {
    size_t index;
    json accepted = job_take_over(one->subject, item, &index);
    text out = {0};
    text_add(&out, "{");
    add_handle(&out, "job", 'j', index);
    static const char *const shown[] = {"job_id", "agent", "lease", "budget"};
    for (size_t i = 0; i < sizeof shown / sizeof shown[0]; i++) {
        text_add_member(&out, shown[i], json_member(accepted, shown[i]));
    }
    text_add(&out, "}");
    answer_text(one->id, &out);
}

static void do_submit(long id, json command) {
    session *owner = handles_find(&sessions, command, "session");
    if (owner == NULL) {
        answer_bad(id, "no such session");
        return;
    }
    static const char *const passed_on[] = {"agent", "lease_request", "idempotency_key", "max_runtime_sec"};
    text request = {0};
    text_add(&request, "{");
    for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++) {
        text_add_member(&request, passed_on[i], json_member(command, passed_on[i]));
    }
    text_add_member(&request, "input", json_member_or_null(command, "input"));
    text_add_member(&request, "expires_at", json_member(json_member(command, "lease_constraints"), "expires_at"));
    text_add(&request, "}");
    call *next = call_new(id, then_submitted, owner);
    arcp_error *error;
    begun(next, arcp_client_submit(owner->client, port, number_of(next), request.at, &error), &error);
    free(request.at);
}

static void then_subscribed(call *one, arcp_item *item) {
    size_t index;
    json subscribed = job_take_over(one->subject, item, &index);
    text out = {0};
    text_add(&out, "{");
    add_handle(&out, "job", 'j', index);
    text_add_member(&out, "status", json_member(subscribed, "current_status"));
    text_add_member(&out, "agent", json_member(subscribed, "agent"));
    text_add_member(&out, "replayed", json_member(subscribed, "replayed"));
    text_add(&out, "}");
    answer_text(one->id, &out);
}

static void do_subscribe(long id, json command) {
    session *owner = handles_find(&sessions, command, "session");
    if (owner == NULL) {
        answer_bad(id, "no such session");
        return;
    }
    static const char *const passed_on[] = {"job_id", "history", "from_event_seq"};
    text request = {0};
    text_add(&request, "{");
    for (size_t i = 0; i < sizeof passed_on / sizeof passed_on[0]; i++) {
        text_add_member(&request, passed_on[i], json_member(command, passed_on[i]));
    }
    text_add(&request, "}");
    call *next = call_new(id, then_subscribed, owner);
    arcp_error *error;
    begun(next, arcp_client_subscribe(owner->client, port, number_of(next), request.at, &error), &error);
    free(request.at);
}

static void do_attach(long id, session *of, json command) {
    char *job_id = json_string(json_member(command, "job_id"));
    arcp_job *found;
    arcp_error *error;
    if (arcp_client_job(of->client, job_id, &found, &error) == ARCP_OK) {
        text out = {0};
        text_add(&out, "{");
        add_handle(&out, "job", 'j', job_keep(of, found));
        text_add(&out, "}");
        answer_text(id, &out);
    } else {
        answer_failure(id, error);
    }
    arcp_error_free(error);
    free(job_id);
}

static void then_listed(call *one, arcp_item *item) {
    json page = json_parse(item->text), next = json_member(page, "next_cursor");
    text out = {0};
    text_add(&out, "{");
    text_add_member(&out, "jobs", json_member(page, "jobs"));
    text_add_member(&out, "next_cursor", next.at != NULL ? next : json_parse("null"));
    text_add(&out, "}");
    answer_text(one->id, &out);
}

static void do_list_jobs(long id, session *of, json command) {
    json status = json_member(command, "status"), agent = json_member(command, "agent");
    text filter = {0}, request = {0};
    text_add(&filter, "{");
    text_add_member(&filter, "status", status);
    text_add_member(&filter, "agent", agent);
    text_add(&filter, "}");
    text_add(&request, "{");
    if (status.at != NULL || agent.at != NULL) {
        text_add_member(&request, "filter", json_parse(filter.at));
    }
    text_add_member(&request, "limit", json_member(command, "limit"));
    text_add_member(&request, "cursor", json_member(command, "cursor"));
    text_add(&request, "}");
    call *next = call_new(id, then_listed, of);
    arcp_error *error;
    begun(next, arcp_client_list_jobs(of->client, port, number_of(next), request.at, &error), &error);
    free(filter.at);
    free(request.at);
}

static void job_take(job *of, arcp_event_batch *batch) {
    size_t length;
    const arcp_event *events = arcp_event_batch_events(batch, &length);
    of->events = realloc(of->events, (of->count + length) * sizeof *of->events);
    if (of->events == NULL) {
        abort();
    }
    for (size_t i = 0; i < length; i++) {
        text event = {0};
        text_add(&event, "{\"kind\":");
        text_add_string(&event, events[i].kind);
        text_add(&event, ",\"body\":");
        text_add_bytes(&event, events[i].body, events[i].body_length);
        text_add(&event, "}");
        of->events[of->count++] = event;
    }
    arcp_event_batch_free(batch);
}

static void job_hand_out(job *of, size_t count) {
    waiter *first = of->waiters;
    text out = {0};
    text_add(&out, "{\"events\":[");
    for (size_t i = 0; i < count; i++) {
        text_add(&out, i > 0 ? "," : "");
        text_add(&out, of->events[i].at);
        free(of->events[i].at);
    }
    of->count -= count;
    memmove(of->events, of->events + count, of->count * sizeof *of->events);
    text_add(&out, of->ended && of->count == 0 ? "],\"ended\":true}" : "],\"ended\":false}");
    answer_text(first->id, &out);
    of->waiters = first->next;
    free(first);
}

/* Answers whom it can; takes no more from the library than somebody waits for. */
static void job_serve(job *of) {
    while (of->waiters != NULL) {
        long max = of->waiters->max;
        if (max >= 0 && of->count >= (size_t)max) {
            job_hand_out(of, (size_t)max);
        } else if (of->ended) {
            job_hand_out(of, of->count);
        } else if (of->waiting) {
            return;
        } else {
            size_t room = max < 0 ? EVENTS_AT_ONCE : (size_t)max - of->count;
            arcp_event_batch *batch;
            if (arcp_job_next_batch(of->job, port, number_of(of), room, &batch, &of->ended, NULL) != ARCP_OK) {
                of->ended = true;
            } else if (batch != NULL) {
                job_take(of, batch);
            } else {
                of->waiting = !of->ended;
            }
        }
    }
}

static void do_events(long id, job *of, json command) {
    waiter *last = make(sizeof *last), **end = &of->waiters;
    *last = (waiter){.id = id, .max = json_number(json_member(command, "max"), -1)};
    while (*end != NULL) {
        end = &(*end)->next;
    }
    *end = last;
    job_serve(of);
}

static void answer_result(long id, json ended, json value) {
    text out = {0};
    text_add(&out, "{");
    text_add_member(&out, "status", json_member(ended, "final_status"));
    text_add_member(&out, "result", value);
    text_add_member(&out, "summary", json_member(ended, "summary"));
    text_add(&out, "}");
    answer_text(id, &out);
}

/* The parts put together, as one JSON text on one line. */
static void then_bytes(call *one, arcp_item *item) {
    text whole = {0};
    text_add(&whole, "");
    if (item->data_length > 0) {
        text_add_bytes(&whole, (const char *)item->data, item->data_length);
    }
    for (size_t i = 0; i < whole.length; i++) {
        if (whole.at[i] == '\n' || whole.at[i] == '\r') {
            whole.at[i] = ' '; /* blank between values: inside a string it would be escaped */
        }
    }
    json value = json_parse_whole(whole.at, whole.length);
    if (value.at != NULL) {
        answer_result(one->id, json_parse(one->ended), value);
    } else {
        answer_error(one->id, "INVALID_REQUEST", "the streamed result is not JSON", false, NULL);
    }
    free(whole.at);
}

static void then_result(call *one, arcp_item *item) {
    job *of = one->subject;
    json ended = json_parse(item->text);
    if (json_member(ended, "result_id").at == NULL) {
        answer_result(one->id, ended, json_member_or_null(ended, "result"));
        return;
    }
    call *next = call_new(one->id, then_bytes, of);
    text copy = {0};
    text_add(&copy, item->text);
    next->ended = copy.at;
    arcp_error *error;
    begun(next, arcp_job_result_bytes(of->job, port, number_of(next), &error), &error);
}

static void do_result(long id, job *of) {
    call *next = call_new(id, then_result, of);
    arcp_error *error;
    begun(next, arcp_job_result(of->job, port, number_of(next), &error), &error);
}

static void answer_done(long id, arcp_result result, arcp_error *error) {
    if (result == ARCP_OK) {
        answer(id, "ok", "{}");
    } else {
        answer_failure(id, error);
    }
    arcp_error_free(error);
}

static void do_cancel(long id, session *of, json command) {
    char *job_id = json_string(json_member(command, "job_id")), *reason = json_string(json_member(command, "reason"));
    arcp_error *error;
    arcp_result result = arcp_client_cancel_job(of->client, job_id, reason, &error);
    answer_done(id, result, error);
    free(job_id);
    free(reason);
}

static void do_close(long id, session *of) {
    call *next = call_new(id, then_nothing, of);
    arcp_error *error;
    begun(next, arcp_client_close(of->client, port, number_of(next), NULL, &error), &error);
}

/* Runtime -------------------------------------------------------------------------------------------------------- */

static arcp_result register_agents(arcp_runtime *runtime, json names, arcp_error **error) {
    json name;
    for (size_t cursor = 0; json_next(names, &cursor, NULL, &name);) {
        char *reference = json_string(name);
        char *at = strchr(reference, '@');
        if (at != NULL) {
            *at++ = '\0';
        }
        arcp_result result = arcp_runtime_register_agent(runtime, agents, reference, at, error);
        free(reference);
        if (result != ARCP_OK) {
            return result;
        }
    }
    return ARCP_OK;
}

static arcp_result runtime_with_tokens(json table, arcp_runtime **runtime, arcp_error **error) {
    arcp_token *tokens = NULL;
    size_t count = 0;
    json token, principal;
    for (size_t cursor = 0; json_next(table, &cursor, &token, &principal); count++) {
        tokens = realloc(tokens, (count + 1) * sizeof *tokens);
        if (tokens == NULL) {
            abort();
        }
        tokens[count] = (arcp_token){.token = json_string(token), .principal = json_string(principal)};
    }
    const char *options = "{\"name\":\"arcp-shim-c\",\"version\":\"1\"}";
    arcp_result result = arcp_runtime_new(core, options, tokens, count, runtime, error);
    for (size_t i = 0; i < count; i++) {
        free((char *)tokens[i].token);
        free((char *)tokens[i].principal);
    }
    free(tokens);
    return result;
}

static void then_bound(call *one, arcp_item *item) {
    hosting *made = one->subject;
    made->listener = item->listener;
    item->listener = NULL;
    call *serving = call_new(-1, then_nothing, made);
    serving->failed_too = true;
    arcp_error *error;
    if (arcp_runtime_serve(made->runtime, port, number_of(serving), made->listener, &error) != ARCP_OK) {
        answer_failure(one->id, error);
        arcp_error_free(error);
        call_free(serving);
        return;
    }
    text out = {0};
    text_add(&out, "{");
    add_handle(&out, "runtime", 'r', handles_add(&hostings, made));
    text_add(&out, ",\"url\":");
    text_add_string(&out, arcp_listener_url(made->listener));
    text_add(&out, "}");
    answer_text(one->id, &out);
}

static bool all_known(json names) {
    json name;
    for (size_t cursor = 0; json_next(names, &cursor, NULL, &name);) {
        char *reference = json_string(name);
        bool known = reference != NULL && agents_know(reference);
        free(reference);
        if (!known) {
            return false;
        }
    }
    return true;
}

static void do_serve(long id, json command) {
    if (!all_known(json_member(command, "agents"))) {
        answer_bad(id, "no such corpus agent");
        return;
    }
    hosting *made = make(sizeof *made);
    call *next = call_new(id, then_bound, made);
    arcp_error *error;
    arcp_result result = runtime_with_tokens(json_member(command, "tokens"), &made->runtime, &error);
    if (result == ARCP_OK) {
        result = register_agents(made->runtime, json_member(command, "agents"), &error);
    }
    if (result == ARCP_OK) {
        result = arcp_listener_bind(core, port, number_of(next), "{\"port\":0}", &error);
    }
    begun(next, result, &error);
}

static void do_stop(long id, hosting *of) {
    arcp_listener_close(of->listener);
    call *next = call_new(id, then_nothing, of);
    arcp_error *error;
    begun(next, arcp_runtime_shutdown(of->runtime, port, number_of(next), NULL, 1000, &error), &error);
}

/* Commands ------------------------------------------------------------------------------------------------------- */

static const char *const FUNCTIONS[] = {
    "parse_agent_ref",   "parse_budget_amount", "validate_lease_op", "is_lease_subset",
    "intersect_features", "error_from_payload",  "envelope",
};
enum { FUNCTION_COUNT = sizeof FUNCTIONS / sizeof FUNCTIONS[0] };

static void do_hello(long id) {
    text out = {0};
    text_add(&out, "{\"language\":\"c\",\"capabilities\":[\"client\",\"runtime\",\"subscribe\",\"submit.lease\",\"agent_versions\"");
    text_add(&out, ",\"heal\",\"resume\",\"listing\",\"result_chunk\"");
    for (int i = 0; agents_name(i) != NULL; i++) {
        text_add(&out, ",\"agent.");
        text_add(&out, agents_name(i));
        text_add(&out, "\"");
    }
    for (int i = 0; i < FUNCTION_COUNT; i++) {
        text_add(&out, ",\"call.");
        text_add(&out, FUNCTIONS[i]);
        text_add(&out, "\"");
    }
    text_add(&out, "]}");
    answer_text(id, &out);
}

static void do_call(long id, json command) {
    char *function = json_string(json_member(command, "function"));
    text arguments = {0};
    text_add_json(&arguments, json_member(command, "args"));
    char *value;
    arcp_error *error;
    if (arcp_call_function(function, arguments.at, &value, &error) == ARCP_OK) {
        answer(id, "ok", value);
    } else {
        answer_failure(id, error);
    }
    arcp_string_free(value);
    arcp_error_free(error);
    free(arguments.at);
    free(function);
}

static void leave(void) {
    arcp_core_shutdown(core, EXIT_MS);
    exit(0);
}

static void with_session(long id, json command, void (*then)(long, session *, json)) {
    session *of = handles_find(&sessions, command, "session");
    if (of == NULL) {
        answer_bad(id, "no such session");
    } else {
        then(id, of, command);
    }
}

static void close_session(long id, session *of, json command) {
    (void)command;
    do_close(id, of);
}

static void with_job(long id, json command, const char *what) {
    job *of = handles_find(&jobs, command, "job");
    if (of == NULL) {
        answer_bad(id, "no such job");
    } else if (strcmp(what, "events") == 0) {
        do_events(id, of, command);
    } else if (strcmp(what, "result") == 0) {
        do_result(id, of);
    } else {
        arcp_error *error;
        arcp_result result = arcp_client_unsubscribe(of->session->client, arcp_job_id(of->job), &error);
        answer_done(id, result, error);
    }
}

static void carry_out(const char *line) {
    json command = json_parse(line);
    long id = json_number(json_member(command, "id"), -1);
    char *what = json_string(json_member(command, "do"));
    if (what == NULL) {
        answer_bad(id, "not a command");
    } else if (strcmp(what, "hello") == 0) {
        do_hello(id);
    } else if (strcmp(what, "exit") == 0) {
        answer(id, "ok", "{}");
        leave();
    } else if (strcmp(what, "connect") == 0) {
        do_connect(id, command);
    } else if (strcmp(what, "submit") == 0) {
        do_submit(id, command);
    } else if (strcmp(what, "subscribe") == 0) {
        do_subscribe(id, command);
    } else if (strcmp(what, "events") == 0 || strcmp(what, "result") == 0 || strcmp(what, "unsubscribe") == 0) {
        with_job(id, command, what);
    } else if (strcmp(what, "attach") == 0) {
        with_session(id, command, do_attach);
    } else if (strcmp(what, "list_jobs") == 0) {
        with_session(id, command, do_list_jobs);
    } else if (strcmp(what, "cancel") == 0) {
        with_session(id, command, do_cancel);
    } else if (strcmp(what, "close") == 0) {
        with_session(id, command, close_session);
    } else if (strcmp(what, "serve") == 0) {
        do_serve(id, command);
    } else if (strcmp(what, "stop") == 0) {
        hosting *of = handles_find(&hostings, command, "runtime");
        if (of == NULL) {
            answer_bad(id, "no such runtime");
        } else {
            do_stop(id, of);
        }
    } else if (strcmp(what, "call") == 0) {
        do_call(id, command);
    } else {
        answer_error(id, "UNSUPPORTED", what, false, NULL);
    }
    free(what);
}

static void handle(arcp_item *item) {
    switch (item->kind) {
        case ARCP_ITEM_COMPLETED: {
            call *done = (call *)(uintptr_t)item->number;
            if (item->error == NULL || done->failed_too) {
                done->then(done, item);
            } else {
                answer_failure(done->id, item->error);
            }
            call_free(done);
            break;
        }
        case ARCP_ITEM_READY: {
            job *ready = (job *)(uintptr_t)item->number;
            ready->waiting = false;
            job_serve(ready);
            break;
        }
        default:
            break;
    }
}

static void drain_port(void) {
    arcp_item item;
    while (arcp_port_next(port, &item, NULL) == ARCP_OK && item.kind != ARCP_ITEM_NONE) {
        handle(&item);
        arcp_item_clear(&item);
    }
}

/* Reads what waits and carries out each whole line; false at the end of the input. */
static bool read_commands(text *pending) {
    char chunk[65536];
    ssize_t length = read(STDIN_FILENO, chunk, sizeof chunk);
    if (length < 0) {
        return errno == EINTR;
    }
    text_add_bytes(pending, chunk, (size_t)length);
    char *line = pending->at;
    for (char *end; (end = memchr(line, '\n', pending->length - (size_t)(line - pending->at))) != NULL; line = end + 1) {
        *end = '\0';
        carry_out(line);
    }
    pending->length -= (size_t)(line - pending->at);
    memmove(pending->at, line, pending->length);
    return length > 0;
}

int main(void) {
    if (arcp_core_new(0, &core, NULL) != ARCP_OK || arcp_port_new(core, NULL, NULL, &port, NULL) != ARCP_OK ||
        (agents = agents_start(core)) == NULL) {
        fputs("the library does not start\n", stderr);
        return 1;
    }
    struct pollfd inputs[] = {
        {.fd = STDIN_FILENO, .events = POLLIN},
        {.fd = arcp_port_fd(port), .events = POLLIN},
        {.fd = arcp_port_fd(agents), .events = POLLIN},
    };
    text pending = {0};
    for (;;) {
        if (poll(inputs, 3, agents_wake()) < 0 && errno != EINTR) {
            perror("poll");
            return 1;
        }
        if ((inputs[1].revents & POLLIN) != 0) {
            drain_port();
        }
        if ((inputs[2].revents & POLLIN) != 0) {
            agents_drain();
        }
        if ((inputs[0].revents & (POLLIN | POLLHUP)) != 0 && !read_commands(&pending)) {
            leave();
        }
    }
}
