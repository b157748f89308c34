#include "registry.h"

#include <stdlib.h>
#include <string.h>

static void then_answer(call *one, arcp_item *item) {
    answer(one->id, "ok", item->text);
}

static void then_list(call *one, arcp_item *item) {
    text out = {0};
    text_add(&out, "{\"agents\":");
    text_add(&out, item->text);
    text_add(&out, "}");
    answer_text(one->id, &out);
}

/* Asks the registry of the command's URL; uses the arguments up. */
static void ask(long id, json command, const char *operation, text *arguments, void (*then)(call *, arcp_item *)) {
    text options = {0};
    text_add(&options, "{\"base_url\":");
    text_add_json(&options, json_member(command, "url"));
    text_add(&options, "}");
    arcp_registry *registry;
    arcp_error *error;
    if (arcp_registry_new(core, options.at, &registry, &error) == ARCP_OK) {
        arcp_error *refused;
        call *one = call_new(id, then, NULL);
        arcp_result result = arcp_registry_call(registry, port, number_of(one), operation, arguments->at, &refused);
        begun(one, result, &refused);
    } else {
        answer_failure(id, error);
    }
    /* The call holds what it needs. */
    arcp_registry_free(registry);
    arcp_error_free(error);
    free(options.at);
    free(arguments->at);
}

static void do_register(long id, json command) {
    text arguments = {0};
    json agent = json_member(command, "agent"), name, value;
    text_add(&arguments, "{");
    for (size_t cursor = 0; json_next(agent, &cursor, &name, &value);) {
        if (arguments.length > 1) {
            text_add(&arguments, ",");
        }
        text_add_json(&arguments, name);
        text_add(&arguments, ":");
        text_add_json(&arguments, value);
    }
    text_add_member(&arguments, "agent_key", json_member(command, "agent_key"));
    text_add(&arguments, "}");
    ask(id, command, "register_agent", &arguments, then_answer);
}

static void do_discover(long id, json command) {
    static const char *const MEMBERS[] = {"agent_type", "capabilities", "limit"};
    text arguments = {0};
    text_add(&arguments, "{");
    for (size_t i = 0; i < sizeof MEMBERS / sizeof MEMBERS[0]; i++) {
        text_add_member(&arguments, MEMBERS[i], json_member(command, MEMBERS[i]));
    }
    text_add(&arguments, "}");
    ask(id, command, "discover_agents", &arguments, then_list);
}

bool registry_carries_out(long id, const char *what, json command) {
    if (strcmp(what, "health") == 0) {
        text none = {0};
        text_add(&none, "{}");
        ask(id, command, "health_check", &none, then_answer);
    } else if (strcmp(what, "register") == 0) {
        do_register(id, command);
    } else if (strcmp(what, "discover") == 0) {
        do_discover(id, command);
    } else {
        return false;
    }
    return true;
}
