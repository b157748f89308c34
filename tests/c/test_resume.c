/*
 * A runtime in a process of its own, over a database, killed with a job under way and started again: a client of the first
 * finds its job in the second. `test_resume serve DB PORT hold|finish` is that process; it prints its URL.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"

#include <signal.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char *program;

/* The process that serves ---------------------------------------------------------------------------------------- */

/* `hold` runs `keeper` without an end; `finish` ends it at once. `fragile` is as `keeper`, but is not run again. */
static int serve(const char *db, const char *port_number, bool finish) {
    static const arcp_token tokens[] = {{"good", "alice"}};
    arcp_core *core;
    arcp_port *port;
    arcp_runtime *runtime;
    arcp_item item;
    char options[512], listen[64];
    snprintf(options, sizeof options, "{\"name\":\"server\",\"version\":\"1\",\"db\":\"%s\",\"synchronous\":\"normal\"}", db);
    snprintf(listen, sizeof listen, "{\"port\":%s}", port_number);
    if (arcp_core_new(2, &core, NULL) != ARCP_OK || arcp_port_new(core, NULL, NULL, &port, NULL) != ARCP_OK ||
        arcp_runtime_new(core, options, tokens, 1, &runtime, NULL) != ARCP_OK ||
        arcp_runtime_register_agent_with(runtime, port, "keeper", NULL, "{\"restartable\":true}", NULL) != ARCP_OK ||
        arcp_runtime_register_agent(runtime, port, "fragile", NULL, NULL) != ARCP_OK ||
        arcp_listener_bind(core, port, 1, listen, NULL) != ARCP_OK ||
        arcp_port_wait_call(port, 1, WAIT_MS, &item, NULL) != ARCP_OK ||
        arcp_runtime_serve(runtime, port, 2, item.listener, NULL) != ARCP_OK) {
        return 1;
    }
    printf("%s\n", arcp_listener_url(item.listener));
    fflush(stdout);
    while (arcp_port_wait(port, -1, NULL) == ARCP_OK && arcp_port_next(port, &item, NULL) == ARCP_OK) {
        if (item.kind == ARCP_ITEM_INVOKE) {
            arcp_invocation_emit(item.invocation, "status", finish ? "{\"phase\":\"again\"}" : "{\"phase\":\"first\"}", NULL, NULL);
            if (finish) {
                arcp_invocation_complete(item.invocation, arcp_invocation_input(item.invocation), NULL);
            } else {
                item.invocation = NULL; /* held until the process is killed */
            }
        }
        arcp_item_clear(&item);
    }
    return 1;
}

typedef struct {
    pid_t process;
    char url[128];
} server;

static server server_start(const char *db, const char *port_number, const char *how) {
    server started = {0};
    int ends[2];
    CHECK(pipe(ends) == 0);
    fflush(stdout);
    started.process = fork();
    if (started.process == 0) {
        dup2(ends[1], STDOUT_FILENO);
        close(ends[0]);
        close(ends[1]);
        alarm(60); /* never left behind */
        execl(program, program, "serve", db, port_number, how, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    FILE *said = fdopen(ends[0], "r");
    CHECK(said != NULL && fgets(started.url, sizeof started.url, said) != NULL);
    started.url[strcspn(started.url, "\n")] = '\0';
    if (said != NULL) {
        fclose(said);
    }
    return started;
}

static void server_kill(const server *running) {
    int status = 0;
    CHECK(kill(running->process, SIGKILL) == 0 && waitpid(running->process, &status, 0) == running->process);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* The client ----------------------------------------------------------------------------------------------------- */

typedef struct {
    arcp_core *core;
    arcp_port *port;
    uint64_t calls;
    char folder[64], db[96];
} world;

static void world_open(world *w) {
    arcp_error *error;
    *w = (world){.folder = "/tmp/arcp-c-resume-XXXXXX"};
    CHECK(mkdtemp(w->folder) != NULL);
    snprintf(w->db, sizeof w->db, "%s/sessions.db", w->folder);
    EXPECT(ARCP_OK, arcp_core_new(2, &w->core, &error));
    EXPECT(ARCP_OK, arcp_port_new(w->core, NULL, NULL, &w->port, &error));
}

static void world_free(world *w) {
    static const char *const ends[] = {"", "-wal", "-shm", ".lock", "-lock"};
    arcp_core_shutdown(w->core, 1000);
    arcp_port_free(w->port);
    arcp_core_free(w->core);
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s%s", w->db, ends[i]);
        unlink(path);
    }
    CHECK(rmdir(w->folder) == 0);
}

/* A member that is text, copied out of JSON. */
static void member(const char *json, const char *name, char *value, size_t size) {
    char start[64];
    snprintf(start, sizeof start, "\"%s\":\"", name);
    const char *found = json != NULL ? strstr(json, start) : NULL;
    CHECK(found != NULL);
    found = found != NULL ? found + strlen(start) : "";
    snprintf(value, size, "%.*s", (int)strcspn(found, "\""), found);
}

/* What comes of connecting: with `resume`, to a session of before. `asking` has the token asked for. */
static arcp_result connect_to(world *w, const server *to, bool reconnect, const char *resume, bool asking,
                              arcp_client **client, arcp_item *welcome, arcp_error **given) {
    arcp_error *error;
    arcp_item item;
    uint64_t call = ++w->calls;
    EXPECT(ARCP_OK, arcp_client_new(w->core, reconnect ? "{\"name\":\"c\",\"version\":\"1\",\"reconnect\":{\"initial_sec\":0.02}}"
                                                       : "{\"name\":\"c\",\"version\":\"1\",\"reconnect\":false}", client, &error));
    EXPECT(ARCP_OK, arcp_transport_connect(w->core, w->port, call, to->url, NULL, &error));
    EXPECT(ARCP_OK, arcp_port_wait_call(w->port, call, WAIT_MS, &item, &error));
    call = ++w->calls;
    if (asking) {
        arcp_port *tokens;
        arcp_item asked;
        EXPECT(ARCP_OK, arcp_port_new(w->core, NULL, NULL, &tokens, &error));
        EXPECT(ARCP_OK, arcp_client_connect_asking(*client, w->port, call, item.transport, tokens, resume, &error));
        EXPECT(ARCP_OK, arcp_port_wait(tokens, WAIT_MS, &error));
        EXPECT(ARCP_OK, arcp_port_next(tokens, &asked, &error));
        CHECK(asked.kind == ARCP_ITEM_TOKEN);
        EXPECT(ARCP_OK, arcp_token_answer(asked.token_request, "good", &error));
        arcp_item_clear(&asked);
        arcp_port_free(tokens);
    } else if (resume != NULL) {
        EXPECT(ARCP_OK, arcp_client_connect_resuming(*client, w->port, call, item.transport, "good", resume, &error));
    } else {
        EXPECT(ARCP_OK, arcp_client_connect(*client, w->port, call, item.transport, "good", &error));
    }
    arcp_item_clear(&item);
    return arcp_port_wait_call(w->port, call, WAIT_MS, welcome, given);
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

/* Waits for one event, whose body holds `part`. */
static void expect_event(world *w, const arcp_job *job, const char *part) {
    arcp_error *error;
    arcp_event_batch *batch = NULL;
    bool ended = false;
    uint64_t stream = ++w->calls;
    while (EXPECT(ARCP_OK, arcp_job_next_batch(job, w->port, stream, 1, &batch, &ended, &error)) && batch == NULL && !ended) {
        if (!EXPECT(ARCP_OK, arcp_port_wait_stream(w->port, stream, WAIT_MS, &error))) {
            break;
        }
    }
    size_t count = 0;
    const arcp_event *events = arcp_event_batch_events(batch, &count);
    CHECK(count == 1);
    CHECK_HOLDS(count == 1 ? events[0].body : "", part);
    arcp_event_batch_free(batch);
}

static arcp_result result_of(world *w, const arcp_job *job, arcp_item *item, arcp_error **error) {
    uint64_t call = ++w->calls;
    CHECK(arcp_job_result(job, w->port, call, NULL) == ARCP_OK);
    return arcp_port_wait_call(w->port, call, WAIT_MS, item, error);
}

/* Waits until something has come for the job, and it is listed. */
static void expect_known(const arcp_client *client, const char *job_id) {
    bool known = false;
    for (int waited = 0; !known && waited < WAIT_MS; waited += 10) {
        arcp_error *error;
        char *jobs;
        if (!EXPECT(ARCP_OK, arcp_client_jobs(client, &jobs, &error))) {
            return;
        }
        known = strstr(jobs, job_id) != NULL;
        arcp_string_free(jobs);
        if (!known) {
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        }
    }
    CHECK(known);
}

/* A second client takes up what the first left, at a server that was killed in between. */
static void take_up(bool asking) {
    world w;
    arcp_error *error;
    arcp_item item;
    arcp_client *first, *second;
    arcp_job *job;
    char keeper[64], fragile[64], session[64], token[256], resume[512];
    world_open(&w);
    server running = server_start(w.db, "0", "hold");
    EXPECT(ARCP_OK, connect_to(&w, &running, false, NULL, false, &first, &item, &error));
    member(item.text, "session_id", session, sizeof session);
    member(item.text, "resume_token", token, sizeof token);
    arcp_item_clear(&item);
    const char *const requests[] = {"{\"agent\":\"keeper\",\"input\":{\"n\":9007199254740993}}", "{\"agent\":\"fragile\"}"};
    for (int i = 0; i < 2; i++) {
        job = submit(&w, first, requests[i]);
        snprintf(i == 0 ? keeper : fragile, sizeof keeper, "%s", arcp_job_id(job));
        expect_event(&w, job, "first");
        arcp_job_free(job);
    }
    uint64_t last = arcp_client_latest_event_seq(first);
    CHECK(last >= 2);
    server_kill(&running);
    uint64_t call = ++w.calls;
    EXPECT(ARCP_OK, arcp_client_closed(first, w.port, call, &error));
    CHECK(arcp_port_wait_call(w.port, call, WAIT_MS, NULL, NULL) != ARCP_WAIT_TIMEOUT);
    arcp_client_free(first);

    running = server_start(w.db, "0", "finish");
    snprintf(resume, sizeof resume, "{\"session_id\":\"%s\",\"resume_token\":\"not_it\",\"last_event_seq\":0}", session);
    arcp_result refused = connect_to(&w, &running, false, resume, asking, &second, &item, &error);
    CHECK(refused != ARCP_OK && refused != ARCP_WAIT_TIMEOUT && error != NULL);
    CHECK(error == NULL || strstr(arcp_error_message(error), "not_it") == NULL);
    arcp_error_free(error);
    arcp_client_free(second);

    snprintf(resume, sizeof resume, "{\"session_id\":\"%s\",\"resume_token\":\"%s\",\"last_event_seq\":%llu}", session, token,
             (unsigned long long)last);
    EXPECT(ARCP_OK, connect_to(&w, &running, false, resume, asking, &second, &item, &error));
    CHECK_HOLDS(item.text, session);
    arcp_item_clear(&item);
    expect_known(second, keeper);
    EXPECT(ARCP_OK, arcp_client_job(second, keeper, &job, &error));
    CHECK_TEXT(arcp_job_id(job), keeper);
    expect_event(&w, job, "again");
    EXPECT(ARCP_OK, result_of(&w, job, &item, &error));
    CHECK_HOLDS(item.text, "{\"n\":9007199254740993}");
    arcp_item_clear(&item);
    arcp_job_free(job);

    EXPECT(ARCP_OK, arcp_client_job(second, fragile, &job, &error));
    arcp_result ended = result_of(&w, job, &item, &error);
    CHECK(arcp_error_retryable(error));
    EXPECT(ARCP_INTERNAL_ERROR, ended);
    arcp_job_free(job);
    arcp_client_free(second);
    server_kill(&running);
    world_free(&w);
}

static void test_a_second_client_takes_up_the_session(void) {
    take_up(false);
}

static void test_taking_up_with_a_token_that_is_asked_for(void) {
    take_up(true);
}

/* One client, one job handle, and no word from the program: the link is healed at the server that comes back. */
static void test_a_client_heals_its_link(void) {
    world w;
    arcp_error *error;
    arcp_item item;
    arcp_client *client;
    world_open(&w);
    server running = server_start(w.db, "0", "hold");
    EXPECT(ARCP_OK, connect_to(&w, &running, true, NULL, false, &client, &item, &error));
    arcp_item_clear(&item);
    arcp_job *job = submit(&w, client, "{\"agent\":\"keeper\",\"input\":[7]}");
    expect_event(&w, job, "first");
    server_kill(&running);
    const char *colon = strrchr(running.url, ':');
    char port_number[16];
    snprintf(port_number, sizeof port_number, "%.*s", colon != NULL ? (int)strspn(colon + 1, "0123456789") : 0,
             colon != NULL ? colon + 1 : "");
    running = server_start(w.db, port_number, "finish");
    expect_event(&w, job, "again");
    EXPECT(ARCP_OK, result_of(&w, job, &item, &error));
    CHECK_HOLDS(item.text, "[7]");
    arcp_item_clear(&item);
    arcp_job_free(job);
    arcp_client_free(client);
    server_kill(&running);
    world_free(&w);
}

int main(int count, char **arguments) {
    if (count == 5 && strcmp(arguments[1], "serve") == 0) {
        return serve(arguments[2], arguments[3], strcmp(arguments[4], "finish") == 0);
    }
    program = arguments[0];
    static const test tests[] = {
        {"a second client takes up the session", test_a_second_client_takes_up_the_session},
        {"taking up with a token that is asked for", test_taking_up_with_a_token_that_is_asked_for},
        {"a client heals its link", test_a_client_heals_its_link},
    };
    return run_tests(tests, sizeof tests / sizeof tests[0]);
}
