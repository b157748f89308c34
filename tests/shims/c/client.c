#include "client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EVENTS_AT_ONCE = 64 };

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

static handles sessions, jobs;

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

static void do_submit(long id, session *owner, json command) {
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

static void do_subscribe(long id, session *owner, json command) {
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

static void do_result(long id, job *of, json command) {
    (void)command;
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

static void do_unsubscribe(long id, job *of, json command) {
    (void)command;
    arcp_error *error;
    arcp_result result = arcp_client_unsubscribe(of->session->client, arcp_job_id(of->job), &error);
    answer_done(id, result, error);
}

static void do_close(long id, session *of, json command) {
    (void)command;
    call *next = call_new(id, then_nothing, of);
    arcp_error *error;
    begun(next, arcp_client_close(of->client, port, number_of(next), NULL, &error), &error);
}

void client_stream_ready(uint64_t stream) {
    job *ready = (job *)(uintptr_t)stream;
    ready->waiting = false;
    job_serve(ready);
}

static const struct {
    const char *name;
    void (*carry_out)(long, session *, json);
} OF_SESSIONS[] = {
    {"submit", do_submit},       {"attach", do_attach}, {"list_jobs", do_list_jobs},
    {"subscribe", do_subscribe}, {"cancel", do_cancel}, {"close", do_close},
};

static const struct {
    const char *name;
    void (*carry_out)(long, job *, json);
} OF_JOBS[] = {{"events", do_events}, {"result", do_result}, {"unsubscribe", do_unsubscribe}};

bool client_carries_out(long id, const char *what, json command) {
    if (strcmp(what, "connect") == 0) {
        do_connect(id, command);
        return true;
    }
    for (size_t i = 0; i < sizeof OF_SESSIONS / sizeof OF_SESSIONS[0]; i++) {
        if (strcmp(what, OF_SESSIONS[i].name) == 0) {
            session *of = handles_find(&sessions, command, "session");
            if (of == NULL) {
                answer_bad(id, "no such session");
            } else {
                OF_SESSIONS[i].carry_out(id, of, command);
            }
            return true;
        }
    }
    for (size_t i = 0; i < sizeof OF_JOBS / sizeof OF_JOBS[0]; i++) {
        if (strcmp(what, OF_JOBS[i].name) == 0) {
            job *of = handles_find(&jobs, command, "job");
            if (of == NULL) {
                answer_bad(id, "no such job");
            } else {
                OF_JOBS[i].carry_out(id, of, command);
            }
            return true;
        }
    }
    return false;
}
