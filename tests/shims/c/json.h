/* Just enough JSON for the shim: members are picked out of a text as texts, so what is passed on stays as it was. */
#ifndef SHIM_JSON_H
#define SHIM_JSON_H

#include <stdbool.h>
#include <stddef.h>

/* The text of one value; `at` is NULL when there is none. The text must be valid JSON: a broken one reads as absent. */
typedef struct {
    const char *at;
    size_t length;
} json;

/* The one value of a whole text. */
json json_parse(const char *text);

/* The one value of a text of this length; absent when something else comes after it. */
json json_parse_whole(const char *text, size_t length);

/* A member of an object. `null` counts as absent. */
json json_member(json object, const char *name);

/* A member that may be `null`. */
json json_member_or_null(json object, const char *name);

/* Steps through an array or object; `*cursor` begins at 0. `name` (may be NULL) is a string value as text. */
bool json_next(json container, size_t *cursor, json *name, json *value);

/* A string decoded, for free(); NULL if the value is not a string. */
char *json_string(json value);

/* A number, or `otherwise`. */
long json_number(json value, long otherwise);

bool json_is_true(json value);

/* A text that grows; starts as {0}. */
typedef struct {
    char *at;
    size_t length, room;
} text;

void text_add(text *to, const char *part);
void text_add_bytes(text *to, const char *part, size_t length);
void text_add_json(text *to, json value);
void text_add_string(text *to, const char *string);

/* Adds `"name":value`, with a comma before it unless it is the first; nothing for an absent value. */
void text_add_member(text *to, const char *name, json value);

#endif
