/* SPDX-License-Identifier: GPL-2.0-only */

static __always_inline void count(int counter)
{
    union stack_int index = {.word = pair(counter, 0)};
    u64 *value = counters.lookup(&index.value);

    if (value)
        (*value)++;
}

static __always_inline void add(u64 *sum, u64 value)
{
    /* Rows are shared between processors; most values are zero and cost a test only. */
    if (value)
        __sync_fetch_and_add(sum, value);
}

static __always_inline void count_extension(int extension, int outcome)
{
    union stack_int index = {.word = pair(extension * OUTCOME_ROOM + outcome, 0)};
    u64 *value = extensions.lookup(&index.value);

    if (value)
        (*value)++;
}
