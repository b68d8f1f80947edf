/* SPDX-License-Identifier: GPL-2.0-only */
/* RFC 5482: USER_TIMEOUT = min(U_LIMIT, max(ADV_UTO, REMOTE_UTO, L_LIMIT)), and never below the RTO. */

static __always_inline u32 user_timeout_to_ms(u16 value)
{
    u32 number = value & ~USER_TIMEOUT_MINUTES & 0xffff;

    return value & USER_TIMEOUT_MINUTES ? number * 60000 : number * 1000;
}

static __always_inline u32 larger(u32 a, u32 b)
{
    return a > b ? a : b;
}

/* Sets the timeout from what both ends said, if the application did not choose one (CHANGEABLE). */
static __always_inline void set_user_timeout(struct bpf_sock_ops *skops, const struct control *settings,
                                             struct connection *connection, u32 advertised_ms)
{
    u32 least = larger(settings->user_timeout_min_ms,
                       (skops->srtt_us >> 3) / 1000 * USER_TIMEOUT_RTTS + USER_TIMEOUT_SLACK_MS);
    union stack_int option;
    u32 timeout = larger(advertised_ms, user_timeout_to_ms(connection->remote_user_timeout));

    if (connection->chose_user_timeout) {
        count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_REFUSED_OWN_CHOICE);
        return;
    }
    timeout = larger(timeout, settings->user_timeout_min_ms);
    if (timeout > settings->user_timeout_max_ms)
        timeout = settings->user_timeout_max_ms;
    timeout = larger(timeout, least);
    if (timeout == connection->user_timeout_ms)
        return;
    option.word = pair(timeout, 0);
    if (bpf_setsockopt(skops, SOL_TCP, OPTION_USER_TIMEOUT, &option.value, sizeof(option.value))) {
        count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_REFUSED_KERNEL);
        return;
    }
    connection->user_timeout_ms = timeout;
    count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_GRANTED);
}
