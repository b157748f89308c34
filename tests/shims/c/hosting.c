#include "hosting.h"

#include <stdlib.h>
#include <string.h>

#include "agents.h"

typedef struct {
    arcp_runtime *runtime;
    arcp_listener *listener;
} hosting;

static handles hostings;

static arcp_result register_agents(arcp_runtime *runtime, arcp_port *agents, json names, arcp_error **error) {
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

static void do_serve(long id, arcp_port *agents, json command) {
    if (!all_known(json_member(command, "agents"))) {
        answer_bad(id, "no such corpus agent");
        return;
    }
    hosting *made = make(sizeof *made);
    call *next = call_new(id, then_bound, made);
    arcp_error *error;
    arcp_result result = runtime_with_tokens(json_member(command, "tokens"), &made->runtime, &error);
    if (result == ARCP_OK) {
        result = register_agents(made->runtime, agents, json_member(command, "agents"), &error);
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

bool hosting_carries_out(long id, arcp_port *agents, const char *what, json command) {
    if (strcmp(what, "serve") == 0) {
        do_serve(id, agents, command);
        return true;
    }
    if (strcmp(what, "stop") == 0) {
        hosting *of = handles_find(&hostings, command, "runtime");
        if (of == NULL) {
            answer_bad(id, "no such runtime");
        } else {
            do_stop(id, of);
        }
        return true;
    }
    return false;
}
