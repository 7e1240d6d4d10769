"""States that other tests of the repository set up: rows of the table all the same."""

from __future__ import annotations

from typing import Final

from tests.states.model import Elsewhere

_UNIT: Final = "tests/unit/monitor"
_CLI: Final = f"{_UNIT}/test_cli.py"
_ATTACKS: Final = "tests/integration/monitor/test_web_attacks.py"

ELSEWHERE: Final = tuple(
    Elsewhere(*row)
    for row in (
        ("w3-no-broker-answers", "W3, 15", "No broker answers at the address that it advertises",
         "faults first; no conclusion about groups; exit code 2", f"{_CLI}::test_no_groups_is_concluded_from_complete_answers_only"),
        ("w3-advertised", "W3, 15", "advertised.listeners names an address that nobody can reach",
         "advertised.listeners and the address are named",
         "tests/unit/monitor/test_addresses.py::test_addresses_that_cannot_be_reached_are_told_with_what_advertises_them"),
        ("c5-coordinator-down", "C5, W3", "`monitor lag --group` while the group's coordinator is down",
         "not known whether there is such a group, and who is silent; exit code 2", f"{_CLI}::test_a_group_that_nobody_could_list_is_not_said_to_be_missing"),
        ("c5-watch", "C5", "A group is gone for a moment while it is watched", "the watch goes on", f"{_CLI}::test_a_watch_outlives_a_group_that_is_gone_for_a_moment"),
        ("c9-cli", "C9", "A partition is refused", "it is named, and the total is a lower bound; exit code 1", f"{_CLI}::test_a_partition_that_is_refused_is_named_and_the_total_is_a_lower_bound"),
        ("c16-filters", "C16", "Groups are left out by settings", "the same in every command", f"{_CLI}::test_all_commands_honour_the_same_filters"),
        ("c16-hidden", "C16", "MONITOR_HIDE_EMPTY_GROUPS and a command", "hidden as on the pages, which is said; shown when named", f"{_CLI}::test_all_commands_hide_empty_groups_and_say_so"),
        ("c16-misspelt", "C16", "A setting is misspelt", "refused, with what is meant; exit code 2", f"{_CLI}::test_a_misspelt_setting_is_refused_with_what_is_meant"),
        ("c16-topic", "C16", "`monitor lag --topic` and groups that do not read it", "they are left out", f"{_CLI}::test_a_group_that_does_not_read_a_topic_is_no_answer_about_it"),
        ("c17-ctrl-c", "C17", "Ctrl-C in the middle of a poll", "ends without a traceback", f"{_CLI}::test_ctrl_c_in_a_poll_ends_quietly"),
        ("w21-full", "W21", "Standard output is full or closed", "one line, exit code 2", f"{_CLI}::test_output_that_cannot_be_written_is_one_line"),
        ("right-head", "right (g)", "Who reads the output has seen enough", "no fault", f"{_CLI}::test_a_reader_that_has_seen_enough_is_no_fault"),
        ("right-address", "right (g)", "The address is wrong", "one line, exit code 2", f"{_CLI}::test_a_wrong_address_is_one_line_and_exit_code_two"),
        ("w18-terminal", "W18", "A name holds control characters", "nothing reaches the terminal as such", f"{_CLI}::test_no_name_controls_the_terminal"),
        ("c2-scheduling", "C2", "The wall clock is set back by an hour", "the next poll is not delayed", f"{_UNIT}/test_every.py::test_a_wall_clock_that_is_set_back_delays_nothing"),
        ("c2-hung-poll", "W1", "A poll hangs", "it is told while it hangs", f"{_UNIT}/test_every.py::test_a_run_that_hangs_is_told_while_it_hangs_and_no_other_begins"),
        ("s1-silent", "S1", "Connections that say nothing", "/health within a second", f"{_ATTACKS}::test_connections_that_say_nothing"),
        ("s1-trickle", "S1", "Heads that trickle in", "/health within a second; a deadline", f"{_ATTACKS}::test_heads_that_trickle_in"),
        ("s1-slow-readers", "S1", "Readers that take nothing of the big page", "/health within a second", f"{_ATTACKS}::test_readers_that_take_nothing_of_the_big_page"),
        ("s2-heads", "S2", "Endless heads", "refused, without memory", f"{_ATTACKS}::test_endless_heads_take_no_memory"),
        ("s2-bodies", "S2", "Bodies", "refused", f"{_ATTACKS}::test_bodies_are_refused"),
        ("21-negative", "21", "A negative offset is committed", "no commit", f"{_UNIT}/test_kafka_encoding.py"),
        ("24-unknown-topic", "24", "Commits on a topic that the metadata does not have", "one request for metadata, not one per poll", f"{_UNIT}/test_collector.py::test_commits_on_an_unknown_topic_cost_one_metadata_request_and_not_one_per_poll"),
        ("c13-first-fetch", "C13", "A coordinator of thousands of groups with long commits", "asked for in parts", f"{_UNIT}/test_batches.py::test_a_reply_that_is_too_large_is_asked_for_in_parts_in_the_same_poll_and_remembered"),
        ("c14-streams", "C14", "A Streams application's assignments of megabytes", "memory is bounded in bytes", f"{_UNIT}/test_batches.py::test_assignments_are_not_kept_by_the_bytes_that_members_put_into_them"),
        ("27-pgbouncer", "27", "PgBouncer's columns differ by version", "read by name", "tests/integration/monitor_database/test_pgbouncer.py::test_limits_pools_and_counters_are_pgbouncers_own"),
        ("28-postgres", "28", "PostgreSQL's limit is per server", "both sides are the server's", "tests/integration/monitor_database/test_postgres.py::test_the_limits_are_the_servers_own"),
        ("31-rates", "31", "Panels with scrapes of 30 or 60 s", "no window shorter than four scrapes", "tests/states/test_alerts_of_many.py::test_no_panel_looks_back_for_less_than_four_scrapes_of_a_minute"),
        ("w10-pair", "W10, 6", "Two monitors watch one cluster", "the same alerts as with one", "tests/states/test_alerts_of_many.py::test_a_pair_of_monitors_tells_what_one_does"),
        ("w10-clusters", "W10, 6", "One group id in two clusters", "each by itself", "tests/states/test_alerts_of_many.py::test_groups_of_one_id_in_two_clusters_are_two"),
        ("w10-rules", "W10, 6", "Every rule with two clusters and two monitors", "each by itself", "tests/integration/alerts/test_clusters_and_monitors.py::test_half_a_fault_in_each_of_two_clusters_is_none"),
        ("week", "W20, all", "A week of all that is innocent", "no alert", "tests/integration/alerts/test_a_week_of_innocence.py::test_a_week_calls_nobody"),
        ("w1-isolation", "W1", "The analysis of one group raises", "it costs that one, which is named", "tests/unit/monitor/analysis/test_isolation.py::test_a_fault_costs_the_one_that_it_is_about"),
        ("w2-soon", "W2", "A start past its partition's end is seen", "dropped, and read anew at once", f"{_UNIT}/test_replaced_topics.py::test_the_start_of_a_shorter_topic_is_read_at_once"),
        ("w9-list", "W9", "A broker that is starting lists nothing", "no group is gone", f"{_UNIT}/test_listings.py::test_a_broker_that_is_starting_and_lists_nothing_deletes_nothing"),
        ("w19-hash", "W19, 17", "Another hash than Kafka's", "absence is proven by name", f"{_UNIT}/test_listings.py::test_another_hash_than_kafkas_proves_nothing"),
        ("c1-real", "C1", "A slow broker on a real connection", "its late answer clears it", "tests/integration/monitor/test_slow_links.py::test_an_answer_that_nobody_waited_for_tells_that_its_broker_is_back"),
        ("c6-bootstrap", "C6", "One bootstrap server is frozen", "costs nothing", "tests/integration/monitor/test_slow_links.py::test_a_bootstrap_server_that_hangs_or_refuses_costs_nothing_when_another_answers"),
        ("c8-remote", "C8, 14", "Remote storage is searched", "in less time than we wait", f"{_UNIT}/test_slow_brokers.py::test_a_broker_that_searches_remote_storage_has_less_time_than_we_wait"),
        ("c15-databases", "C15", "A look at a database raises", "its figures leave the page, the watch goes on", f"{_UNIT}/test_pools_watch.py::test_a_look_that_raises_takes_the_figures_off_and_the_watch_goes_on"),
        ("c17-login", "C17", "A login is refused", "not repeated by every poll", "tests/integration/monitor/test_slow_links.py::test_a_login_that_is_refused_is_not_repeated_by_every_poll"),
        ("s3-page", "S3", "Many visitors of the status page", "rendered once a poll", f"{_UNIT}/test_web.py::test_the_status_page_is_rendered_once_a_poll_and_not_once_a_visitor"),
    )
)  # fmt: skip
