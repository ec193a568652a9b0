//! The list of all rules, and the macro that makes tests of them.

/// Makes one test of each rule of the [conformance suite](crate::conformance).
///
/// Takes the attributes of the tests and an expression that makes the
/// [`Harness`](crate::conformance::Harness); the expression is evaluated in each test.
/// There is an example at the [suite](crate::conformance).
#[macro_export]
macro_rules! conformance_suite {
    ($(#[$attribute:meta])+ $harness:expr) => {
        $crate::__conformance_rules! { __conformance_tests [$(#[$attribute])+] [$harness] }
    };
}

/// Hands the names of all rules, by module, to the macro `$then`.
#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_rules {
    ($then:ident $($before:tt)*) => {
        $crate::$then! { $($before)*
            columns {
                every_column_comes_back
                integers_come_back_at_their_limits
                floats_come_back_exactly
                text_comes_back_byte_for_byte
                bytes_come_back
                times_come_back_in_microseconds
                json_comes_back
                value_objects_come_back
                what_no_column_can_hold_is_refused
                a_key_that_no_column_can_hold_is_refused
                ids_of_every_type_come_back
            }
            log {
                versions_are_dense
                events_say_all_about_themselves
                payloads_are_canonical_json
                events_of_one_commit_are_in_the_order_of_staging
                a_change_without_an_event_leaves_a_marker
                a_creation_without_an_event_leaves_a_marker
                a_removal_leaves_its_events_and_a_marker
                an_unchanged_save_writes_nothing
                an_unchanged_save_with_an_event_is_written
                an_event_without_a_tenant_has_none
            }
            conflicts {
                a_stale_save_is_a_conflict
                a_stale_save_without_an_event_is_a_conflict
                a_stale_unchanged_save_is_a_conflict
                a_stale_removal_is_a_conflict
                a_stale_save_of_its_own_is_wrong_use
                an_aggregate_is_staged_once
                no_update_is_lost
                many_writers_lose_no_update
                all_or_nothing_with_the_stale_one_last
                all_or_nothing_with_the_stale_one_first
                all_or_nothing_with_a_taken_id
                all_or_nothing_with_a_removal
            }
            decisions {
                a_decision_over_several_is_committed
                a_decision_on_what_has_moved_is_a_conflict
                a_decision_on_what_is_gone_is_not_found
                a_guard_is_told_of_with_what_is_staged
                a_save_without_a_change_is_staged
                every_guard_counts
                what_cannot_be_guarded_is_refused
                a_guard_and_a_save_go_together
                a_guard_belongs_to_its_savepoint
                decisions_that_cross_see_each_other
            }
            chains {
                a_chain_goes_on_over_commits
                a_change_without_an_event_is_in_the_chain
                a_chain_goes_on_over_savepoints
                a_chain_goes_on_over_batches
                a_conflict_leaves_the_chain
                a_guard_leaves_the_chain
                a_chain_goes_on_over_imports
                many_writers_make_one_chain
                what_is_no_chain_is_found
            }
            schemas {
                events_have_the_ids_of_their_schemas
                bulk_work_has_the_ids_of_schemas
                relays_publish_the_ids_of_schemas
            }
            processes {
                commands_are_executed_once_and_in_order
                a_deadline_passes_once
                a_deadline_is_replaced
                completion_ends_an_instance
                only_some_events_start_an_instance
                a_failing_command_holds_up_its_instance_alone
                an_event_that_fails_changes_nothing
            }
            event_sets {
                a_row_of_several_aggregates_is_the_fold_of_the_log
                a_row_of_several_aggregates_is_kept_inline
                an_aggregate_of_several_is_parked_alone
                a_row_of_several_aggregates_is_not_said_to_be_of_one
                a_process_goes_over_several_aggregates
                a_set_reads_each_aggregate_as_it_is_read_alone
            }
            consistency {
                a_check_finds_nothing_where_rows_are_right
                a_check_names_the_rows_that_differ
                a_check_needs_the_system_and_a_subscription
            }
            identity {
                an_id_is_used_once
                an_id_is_used_once_within_a_commit
                an_id_is_used_once_over_all_tenants
                an_id_is_not_used_again_after_soft_delete
                an_id_is_not_used_again_after_removal
                an_id_is_not_used_again_after_removal_within_a_commit
                two_types_may_share_an_id
                what_does_not_exist_is_not_found
                what_was_removed_is_not_found
                what_was_never_saved_cannot_be_removed
            }
            tenants {
                other_tenants_see_nothing
                other_tenants_change_nothing
                the_system_sees_every_tenant
                the_system_keeps_the_tenant
                the_system_needs_a_tenant_to_create
                a_root_made_for_another_tenant_is_refused
                aggregates_without_tenant_are_everyones
                a_tenant_may_have_any_name
                work_across_tenants_is_visible_in_the_trace
                maintenance_is_visible_in_the_trace
            }
            audit {
                creation_is_stamped
                a_change_is_stamped
                an_unchanged_save_is_not_stamped
                a_nobody_is_stamped_as_null
                soft_delete_keeps_the_row_from_sight
                soft_delete_is_stamped
                stamps_can_be_asked_for
                a_change_in_a_child_alone_is_stamped
                bulk_changes_are_stamped
                a_bulk_change_of_what_is_deleted_keeps_the_deletion
                restoring_is_stamped_as_a_change
                bulk_work_of_nobody_is_stamped_as_null
                an_import_is_stamped_as_new
            }
            history {
                each_change_leaves_one_revision
                a_revision_is_what_was_saved
                a_refused_commit_leaves_no_revision
                many_aggregates_leave_a_revision_each
                what_is_removed_is_kept_as_it_was
                bulk_work_leaves_revisions
            }
            revisions {
                a_revision_says_what_changed
                an_aggregate_is_found_as_it_was
                revisions_come_in_pages
                revisions_belong_to_their_tenant
                revisions_of_what_is_staged_are_seen
                what_was_before_the_history_is_not_known
                a_revision_of_another_shape_is_named
                old_revisions_are_removed
                the_end_of_a_history_is_removed_last
            }
            finders {
                conditions_on_every_type
                conditions_combine
                many_conditions_are_joined
                a_list_finds_what_is_in_it
                a_range_includes_its_ends
                text_is_tested_exactly
                json_is_looked_into
                value_objects_are_compared_by_column
                null_is_unknown
                text_compares_by_bytes
                an_order_places_null_last
                ties_come_in_the_order_of_the_key
                a_limit_cuts
                count_and_exists
                a_condition_that_no_column_can_hold_is_refused
            }
            repositories {
                one_row_is_expected
                existence_and_count_are_declared
                finders_take_a_specification
                what_is_locked_can_be_changed
                a_queue_is_worked_off
                a_lock_that_would_not_last_is_refused
                read_models_have_repositories
            }
            agreement {
                random_conditions_find_what_they_are_true_for
            }
            children {
                children_come_back_as_they_were_saved
                children_with_keys_come_back_in_their_order
                children_are_saved_by_difference
                a_change_in_a_child_alone_is_a_change
                unchanged_children_are_not_written
                a_stale_save_changes_no_child
                a_copy_is_saved_with_all_children
                two_children_of_one_key_are_refused
                what_a_child_cannot_hold_is_refused
                children_are_removed_with_their_aggregate
                children_are_hidden_with_their_aggregate
                queries_and_pages_have_children
                any_child_asks_for_one_that_fits
                any_child_is_never_unknown
                any_child_stays_within_its_aggregate
                reads_see_staged_children
                savepoints_undo_children
                other_tenants_see_no_children
                many_aggregates_with_children_commit_at_once
                bulk_work_takes_children_along
                random_changes_of_children_are_saved
            }
            unit_of_work {
                reads_see_what_is_staged
                a_staged_change_decides_what_a_query_finds
                a_staged_removal_is_gone
                an_aggregate_can_be_saved_again_after_it_is_read
                what_is_dropped_leaves_nothing
                a_receipt_tells_what_was_written
                an_empty_commit_writes_nothing
                a_read_tells_what_cannot_be_written
                many_aggregates_commit_at_once
                commits_of_others_are_seen
            }
            pages {
                pages_by_cursor_are_the_whole
                a_cursor_survives_changes
                pages_by_offset_have_a_total
                pages_see_what_is_staged
                read_models_have_pages
                a_page_that_makes_no_sense_is_refused
            }
            savepoints {
                what_succeeds_in_a_savepoint_stays
                what_fails_in_a_savepoint_is_undone
                a_refused_write_is_the_error_of_its_savepoint
                savepoints_nest
                undone_savepoints_alone_write_nothing
                an_open_savepoint_is_not_committed
                hooks_run_around_the_commit
                a_hook_that_fails_stops_the_commit
                savepoints_run_again_with_the_work
                hooks_run_for_either_form
            }
            reading {
                reads_are_of_one_moment
                a_read_only_unit_of_work_writes_nothing
                read_returns_the_output
            }
            idempotency {
                a_repetition_returns_the_first_receipt
                a_command_that_writes_nothing_is_recorded
                a_failed_command_is_not_recorded
                keys_belong_to_their_scope
                a_key_answers_its_request_alone
                the_later_of_two_returns_the_receipt_of_the_earlier
                a_unit_of_work_records_one_key
                an_output_comes_back_from_json
                a_key_counts_for_either_form
            }
            inbox {
                a_message_is_processed_once
                messages_belong_to_their_consumer_and_tenant
                a_failed_message_is_processed_again
                the_later_of_two_deliveries_does_nothing
                an_id_that_does_not_fit_is_refused
            }
            interceptors {
                interceptors_see_every_write
                an_interceptor_is_told_whose_an_aggregate_is
                interceptors_run_in_their_order
                an_interceptor_refuses
                an_interceptor_changes_the_aggregate
                what_is_not_committed_has_no_after
                an_interceptor_that_panics_loses_nothing
                interceptors_see_either_form
                an_interceptor_refuses_either_form
            }
            batches {
                batches_commit_every_so_many_items
                a_failed_batch_says_what_was_committed
                a_batch_runs_again_after_a_conflict
                work_within_work_is_refused
            }
            execute {
                the_output_comes_with_the_receipt
                a_conflict_runs_the_work_again
                a_conflict_that_the_work_swallows_runs_it_again
                retries_end
                an_error_of_the_domain_is_not_retried
                what_is_not_retryable_is_not_retried
                a_version_that_the_caller_has_not_seen_is_not_retried
                a_conflict_behind_the_expected_version_is_told_as_one
                an_error_rolls_back
                handlers_run
            }
            bulk_inserts {
                a_bulk_insert_is_as_many_saves
                every_column_comes_back_from_a_bulk_insert
                a_bulk_insert_is_all_or_nothing
                an_id_is_used_once_by_bulk_inserts
                a_bulk_insert_takes_new_aggregates
                a_bulk_insert_is_within_its_tenant
                an_import_commits_in_batches
                a_failed_import_says_what_was_committed
                what_is_imported_is_new
            }
            bulk_changes {
                a_bulk_update_sets_what_differs
                a_bulk_update_goes_in_batches
                a_bulk_update_sets_null_and_documents
                a_bulk_update_raises_an_event
                a_save_behind_a_bulk_update_is_a_conflict
                what_cannot_be_set_is_refused
                a_bulk_removal_is_as_many_removals
                what_was_soft_deleted_is_restored
                what_is_purged_is_gone_for_good
                bulk_changes_are_within_their_tenant
                maintenance_within_work_is_refused
            }
            exports {
                deleted_rows_are_read_where_asked_for
                an_export_is_in_order
                an_export_is_of_one_moment
                an_export_can_be_dropped
                an_export_that_cannot_be_asked_is_an_error
                exports_are_within_their_tenant
            }
            projections {
                a_read_model_is_the_fold_of_the_log
                a_long_log_is_projected_in_pages
                projecting_again_changes_nothing
                rows_are_deleted_and_made_again
                a_key_of_two_columns_is_one_row
                read_models_are_within_the_tenant
                read_models_can_be_asked
                your_own_write_is_there_after_waiting
                waiting_for_an_empty_commit_returns
                an_unknown_subscription_is_a_usage_error
                an_event_that_cannot_be_read_halts_its_subscription
                tenants_are_not_mixed_unasked
                shared_rows_are_of_all_tenants
            }
            inline {
                inline_rows_are_there_after_the_commit
                inline_events_are_those_of_the_log
                a_failing_inline_projection_commits_nothing
                a_conflict_leaves_no_inline_row
                inline_projections_see_what_is_committed
                inline_rows_count_a_repeated_command_once
                a_projection_runs_one_way
                many_writers_fold_into_few_inline_rows
                bulk_work_is_projected_inline
                an_inline_projection_decides_over_either_form
            }
            changes {
                a_commit_counts_its_tables
                reading_counts_nothing
                a_projection_counts_its_tables
                bulk_work_counts_its_table
            }
            subscriptions {
                parked_events_wait_while_others_proceed
                a_replay_that_fails_keeps_the_order
                a_handler_that_panics_fails
                a_skipped_event_is_left_out
                a_full_set_of_parked_events_halts
                what_stands_behind_a_discarded_event_is_replayed
                handlers_share_a_checkpoint
                handlers_are_given_the_types_they_name
                a_subscription_begins_where_it_says
            }
            life_cycle {
                a_paused_subscription_stands_still
                a_pause_outlasts_a_halt
                a_reset_starts_over_in_silence
                a_second_reset_keeps_the_mark
                a_reset_leaves_nothing_out
                a_reset_loses_no_parked_event
                a_reset_keeps_the_record_of_what_was_not_published
                what_cannot_be_cleared_is_not_reset
                only_what_is_registered_is_reset
            }
            sourced {
                a_sourced_aggregate_comes_back
                its_events_are_the_log
                a_stale_append_is_a_conflict
                a_stale_append_takes_the_whole_commit_with_it
                an_append_is_lost_to_nobody
                a_number_is_used_once
                a_removal_is_the_last_event
                what_raised_nothing_is_not_written
                an_event_that_was_not_applied_is_refused
                streams_belong_to_their_tenant
                a_decision_is_saved
                consumers_see_its_events
                rows_and_streams_commit_together
                applying_changes_the_state_alone
            }
            streams {
                reads_see_what_was_appended
                an_undone_append_leaves_no_gap
                streams_are_read_at_one_moment
                snapshots_change_nothing
                it_is_loaded_as_of_any_time
                it_is_loaded_as_it_was
                its_events_say_who_and_when
                its_events_come_in_pages
            }
            twins {
                both_forms_behave_alike
            }
            upcasts {
                aggregates_read_old_events
                projections_read_old_events
                relays_lift_old_events
                what_nothing_lifts_is_named
            }
            forgetting {
                forgetting_closes_what_was_sealed
                forgetting_is_for_good
                forgetting_is_within_the_tenant
                forgetting_finds_one_key_for_each_subject
                forgetting_reaches_aggregates
                forgetting_keeps_replays_working
                forgetting_keeps_projections_to_the_tenant_of_an_event
                forgetting_leaves_nothing_in_the_log
            }
            live {
                a_live_projection_is_the_fold_of_the_log
                live_projections_are_within_the_tenant
                a_live_projection_names_what_it_cannot_read
                an_inline_projection_is_built_from_the_log
                an_inline_projection_that_cannot_be_built_stays
            }
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($attributes:tt $harness:tt $($module:ident { $($rule:ident)* })*) => {
        $($crate::__conformance_module! { $attributes $harness $module $($rule)* })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_module {
    ($attributes:tt $harness:tt $module:ident $($rule:ident)*) => {
        $($crate::__conformance_test! { $attributes $harness $module $rule })*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_test {
    ([$(#[$attribute:meta])+] [$harness:expr] $module:ident $rule:ident) => {
        $(#[$attribute])+
        async fn $rule() {
            $crate::conformance::$module::$rule(&$harness).await;
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_names {
    ($($module:ident { $($rule:ident)* })*) => {
        &[$((
            stringify!($module),
            include_str!(concat!(stringify!($module), ".rs")),
            &[$(stringify!($rule)),*],
        )),*]
    };
}

#[cfg(test)]
mod tests {
    /// Name, source and listed rules of each module.
    const MODULES: &[(&str, &str, &[&str])] = crate::__conformance_rules! { __conformance_names };

    #[test]
    fn every_rule_is_listed() {
        for (module, source, listed) in MODULES {
            let written: Vec<&str> = source
                .split("pub async fn ")
                .skip(1)
                .filter_map(|rest| rest.split_once("<H: Harness>("))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(&written, listed, "module {module}");
        }
    }
}
