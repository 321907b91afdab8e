"""Writes tests/README.md: what seedtf promises, and the tests that check it. Run by ``make promises``.

``PROMISES`` lists the promises with their tests, ``reported_cases.py`` the cases that people have
reported. The last table of the page has the first paragraph of every test module's docstring.
``test_docs.py`` fails if the page is not up to date.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from reported_cases import CASES

TESTS = Path(__file__).resolve().parent

PROMISES: dict[str, dict[str, tuple[str, ...]]] = {
    "Networks of KerasHub": {
        "A preset gives the features that KerasHub gives, with its input scaling inside the model.": (
            "test_features_equal_those_of_keras_hub_behind_its_own_scaling",
        ),
        "A resumed run trains to the same bits, even if the preset's files are gone.": (
            "test_a_restored_state_trains_on_with_the_same_bits",
            "test_a_run_resumes_exactly_without_its_preset",
        ),
        "Files of timm and transformers give the features of the original network.": (
            "test_files_of_timm_are_converted",
            "test_files_of_transformers_are_converted",
        ),
        "LiteRT and ONNX files of these networks predict as the network does.": (
            "test_converted_networks_predict_the_same",
        ),
        "A preset in the cache of Hugging Face or Kaggle needs no internet; a failed download gives a "
        "one-line error.": (
            "test_a_preset_by_name_comes_from_the_cache_of_kaggle",
            "test_files_of_hugging_face_come_from_its_cache",
            "test_a_failed_download_gives_a_one_line_error",
        ),
        "Without KerasHub, one line says what to install.": (
            "test_without_keras_hub_one_line_says_what_to_install",
        ),
    },
    "Features of images": {
        "The features of a run are the inputs of its head; a second call reads them from a cache.": (
            "test_the_features_are_what_the_head_of_the_run_reads",
            "test_a_second_call_builds_no_network_and_decodes_nothing",
        ),
        "The heads of a probe predict as scikit-learn does. No head is fitted on the images that it "
        "predicts, or on their near duplicates.": (
            "test_each_fold_is_predicted_from_the_others_as_scikit_learn_does",
            "test_the_images_of_a_fold_do_not_change_the_head_that_predicts_them",
            "test_twins_are_in_one_fold_and_every_image_counts_once",
        ),
        "The run that a probe saves has the accuracy that its head had in the probe.": (
            "test_the_saved_run_has_the_accuracy_of_its_head_and_can_predict",
        ),
    },
    "Interrupted runs": {
        "A run that is killed at any moment and resumed ends with the same bytes.": (
            "test_a_run_killed_at_any_moment_resumes_exactly",
        ),
        "A resumed run keeps its best model, patience, learning rate and curves.": (
            "test_a_run_killed_at_any_moment_resumes_exactly",
            "test_a_run_stopped_by_a_time_limit_within_an_epoch_resumes_exactly",
        ),
        "SIGTERM and Ctrl-C save and exit with code 75.": (
            "test_a_signal_saves_and_exits_with_75",
        ),
        "If the newest state is damaged, a run resumes from the complete state before it.": (
            "test_if_the_newest_state_is_damaged_the_previous_one_is_used_with_a_warning",
            "test_writing_states_removes_damaged_ones_of_later_epochs",
        ),
        "A full disk or a removed folder gives a one-line error, and the last good state is kept.": (
            "test_a_full_disk_gives_a_one_line_error_and_keeps_the_last_state",
            "test_a_folder_removed_while_running_gives_a_one_line_error",
        ),
        "A resume that cannot be exact is refused, and the error names what has changed.": (
            "test_flags_that_change_the_run_are_refused_by_name",
            "test_changed_data_is_refused_with_the_difference",
        ),
        "A cross-validation that is killed or shared by several machines ends with the same bytes.": (
            "test_folds_killed_at_any_moment_end_with_the_same_bytes",
            "test_real_trainings_killed_at_any_moment_end_with_the_same_bytes",
            "test_machines_share_the_folds_and_train_each_once",
            "test_the_fold_of_a_killed_machine_is_taken_over",
        ),
        "Two processes cannot train the same run.": (
            "test_a_run_cannot_be_resumed_while_it_is_training",
        ),
        "A state and its checkpoints are of the same step, and are written in the background.": (
            "test_saver.py",
        ),
    },
    "Same flags, same numbers": {
        "Training on a packed folder gives the history, split and report of training on the folder.": (
            "test_a_pack_trains_to_the_same_history",
        ),
        "The tables of all shards of a prediction, one after another, equal the whole table.": (
            "test_the_shards_in_order_are_the_whole_table",
        ),
        "Without --sampler=balanced, an epoch has no image twice and leaves out only the images of an "
        "incomplete last batch, also if a run is resumed within the epoch.": (
            "test_every_epoch_holds_each_index_once",
            "test_starting_at_any_step_continues_the_run",
        ),
        "On a CPU, the same seed and number of threads give the same numbers on any number of cores.": (
            "test_the_flagfile_repeats_the_run_exactly",
            "test_the_history_does_not_depend_on_the_number_of_cores",
        ),
        "Augmentation on the device gives the same pixels as on the host.": ("test_placement.py",),
        "Random numbers are the same bits on every device, with and without XLA.": (
            "test_seeds.py",
        ),
        "Several devices or workers train as one device does, and a lost worker stops the others.": (
            "test_distribute.py",
        ),
        "A tf.data service loses no batch, repeats no batch and keeps the order of the batches.": (
            "test_service.py",
        ),
        "The augmentation gives the pixels that the operations of TensorFlow Addons give.": (
            "test_addons.py",
        ),
    },
    "Training on a GPU": {
        "Every operation of a train step without XLA has a GPU kernel.": ("test_gpu_kernels.py",),
        "Every kind of training runs to its end on stub CUDA libraries, without a GPU.": (
            "test_every_kind_of_run_reaches_its_end",
        ),
        "The training thread waits for nothing between two steps.": (
            "test_the_training_thread_waits_for_nothing_between_two_steps",
        ),
        "Several steps in one call train as single steps do, also after a resume. Each is reported.": (
            "test_steps_per_execution.py",
        ),
    },
    "Unusable files, duplicates and wrong labels": {
        "A file is decoded as a viewer shows it, or is refused and named.": (
            "test_lossless_files_are_equal_to_pillow",
            "test_lossy_files_are_close_to_pillow",
            "test_a_damaged_file_gives_an_image_or_a_refusal",
            "test_header_graph.py",
        ),
        "With a cache, every bad file is named before the first step; no file is ever changed.": (
            "test_every_fault_is_reported_and_nothing_else",
            "test_bad_files_are_named_and_skipped",
        ),
        "A file that goes bad during training is named.": (
            "test_files_that_break_during_training_are_named",
        ),
        "Memory and time per image are bounded before decoding.": (
            "test_every_hostile_file_gives_an_image_or_a_refusal",
            "test_decompression_bombs_and_an_empty_file_are_refused_with_the_right_fault",
        ),
        "A folder is listed in a fixed order, without hidden files. Loops of links are not followed.": (
            "test_every_visible_image_is_a_record_or_a_fault",
            "test_a_link_is_followed_and_a_loop_ends",
        ),
        "A drawn split keeps a group, and identical files, on one side. By default it also keeps near "
        "duplicates among up to 20,000 local files on one side.": (
            "test_no_group_is_divided_and_every_class_trains_and_validates",
            "test_identical_files_stay_on_one_side",
            "test_twins_stay_together_unless_they_are_ignored",
            "test_any_folder_is_divided_so_that_each_image_is_predicted_once",
        ),
        "Identical files across the split or in two classes are reported.": (
            "test_identical_images_in_both_sides_of_a_split_give_a_warning",
            "test_identical_images_in_two_classes_give_a_warning",
        ),
        "The page of seedtf explore lists suspected labels first, sends no requests and keeps your "
        "decisions.": (
            "test_flipped_labels_come_first",
            "test_the_page_requests_nothing_and_fits_every_window",
            "test_decisions_by_key_survive_a_reload_and_are_saved",
        ),
        "Images with predicted labels are used only for training, and do not change the split.": (
            "test_confident_images_train_and_the_split_does_not_change",
        ),
        "A poor image is reported with the name of its fault, unless many images have the fault.": (
            "test_each_fault_is_reported_under_its_name",
            "test_a_property_that_many_images_share_is_not_reported",
        ),
        "Labels are corrected in a table: no image file is changed, and every correction is listed.": (
            "test_exactly_the_named_images_change",
            "test_the_split_stays_and_only_the_labels_change",
        ),
        "A model file cannot run code, and a damaged one is called damaged.": (
            "test_a_lambda_layer_runs_nothing",
            "test_no_source_file_can_run_what_it_loads",
            "test_a_truncated_file_is_reported_as_damaged",
        ),
    },
    "Exports": {
        "An export gives its network the same pixels as training does, or is refused.": (
            "test_files_are_classified_as_training_sees_the_images",
            "test_an_export_that_sees_other_pixels_is_refused",
        ),
        "An export appears completely or not at all, under the next free number.": (
            "test_killed_exports_leave_only_complete_versions",
            "test_an_existing_version_is_never_touched",
        ),
        "The signatures and the names of the outputs do not change. An export has its class names.": (
            "test_the_signatures_are_what_clients_rely_on",
            "test_saved_model_cli_shows_the_signature",
            "test_grpc_request_and_response_fit_the_signature",
        ),
        "A bad image does not make the rest of its batch fail.": (
            "test_bad_files_do_not_fail_the_rest_of_the_batch",
            "test_empty_inputs_and_wrong_shapes_fail_the_whole_request",
        ),
        "An exported format is not kept if its predictions differ from those of the model.": (
            "test_a_format_that_disagrees_with_the_model_is_left_out_and_the_rest_exported",
            "test_each_format_agrees_in_its_own_runtime",
        ),
        "OpenVINO runs the network of an export without TensorFlow.": (
            "test_openvino_serves_the_pixels_without_tensorflow",
        ),
        "The warm-up requests are valid.": ("test_warm_up_requests_run",),
    },
    "Trackers": {
        "A run that is killed and resumed is one run in each tracker, with every epoch once.": (
            "test_mlflow_has_one_run_with_every_epoch_once",
            "test_wandb_has_one_run_with_every_epoch_once",
            "test_tensorboard_shows_every_epoch_once_and_the_flags",
            "test_dvclive_files_have_every_epoch_once",
            "test_trackio_has_one_run_with_every_epoch_once",
        ),
        "A tracker that fails gives a one-line warning and does not end the training.": (
            "test_a_failing_tracker_gives_one_warning_and_the_others_continue",
            "test_a_tracker_that_hangs_is_left_out_with_a_warning",
        ),
        "A search is one parent run, and each of its trials is a child run.": (
            "test_a_continued_search_remains_one_parent_run",
            "test_mlflow_has_one_run_with_every_epoch_once",
        ),
        "A missing package gives a one-line error at the start.": (
            "test_a_missing_package_ends_the_command_before_it_reads_an_image",
        ),
    },
    "Commands": {
        "The notebook in scripts/notebooks runs without internet.": (
            "test_the_shipped_notebook_runs_from_top_to_bottom",
        ),
        "The page of `seedtf demo` has calibrated values, and is local unless a flag says otherwise.": (
            "test_the_answers_are_calibrated",
            "test_the_page_is_local_unless_a_flag_says_otherwise",
        ),
        "An existing run folder is never overwritten.": (
            "test_an_existing_run_folder_is_refused_and_kept",
        ),
        "A wrong flag gives a one-line error and exit code 2.": (
            "test_wrong_flags_give_a_one_line_error_and_exit_code_2",
        ),
        "A loss that is not finite stops the run; the error names the step, the files and a remedy.": (
            "test_the_error_names_the_first_step_whose_loss_is_not_finite",
        ),
        "Metrics and intervals agree with scikit-learn, SciPy and statsmodels.": (
            "test_metric_oracles.py",
        ),
    },
}

HEAD = """\
# What seedtf promises, and the tests that check it

Written by `make promises` from `tests/write_readme.py` and the docstrings of the test modules.
`make test` runs all tests, `make test-addons` those that concern the environment of TensorFlow Addons.
"""


def page() -> str:
    """The text of tests/README.md.

    Raises:
        ValueError: a test of ``PROMISES`` or ``CASES`` does not exist.
    """
    modules = sorted(TESTS.glob("test_*.py"))
    trees = {path.name: ast.parse(path.read_text(encoding="utf-8")) for path in modules}
    # For each test, the modules that define it; for each module, itself.
    modules_of: dict[str, list[str]] = {name: [name] for name in trees}
    for name, tree in trees.items():
        for node in tree.body:
            if isinstance(node, ast.FunctionDef):
                modules_of.setdefault(node.name, []).append(name)
    parts = [HEAD]
    for heading, promises in PROMISES.items():
        parts.append(_table(f"## {heading}", "promise", promises, modules_of))
    parts.append("## Cases that people have reported\n")
    for heading, cases in CASES.items():
        parts.append(_table(f"### {heading}", "case", cases, modules_of))
    parts.append("## Every test module\n\n| module | contents |\n|---|---|")
    parts += [f"| [{name}]({name}) | {_summary(tree)} |" for name, tree in trees.items()]
    return "\n".join(parts) + "\n"


def _table(
    heading: str, kind: str, rows: dict[str, tuple[str, ...]], modules_of: dict[str, list[str]]
) -> str:
    """A section with a table that has a row for each key of ``rows``, with links to its tests."""
    lines = [f"{heading}\n\n| {kind} | tests |\n|---|---|"]
    for row, tests in rows.items():
        cells = ", ".join(_links(test, modules_of) for test in tests)
        lines.append(f"| {row} | {cells} |")
    return "\n".join(lines) + "\n"


def _links(test: str, modules_of: dict[str, list[str]]) -> str:
    """The links to a test, one for each module that has it, or the link to a whole module."""
    if test not in modules_of:
        raise ValueError(
            f"{Path(__file__).name}: there is no test {test}; correct PROMISES or CASES"
        )
    return ", ".join(f"[{test}]({module})" for module in modules_of[test])


def _summary(tree: ast.Module) -> str:
    """The first paragraph of a module's docstring in one line; double backquotes become single."""
    paragraph = (ast.get_docstring(tree) or "").split("\n\n")[0]
    return re.sub(r"``(.*?)``", r"`\1`", " ".join(paragraph.split()))


if __name__ == "__main__":
    (TESTS / "README.md").write_text(page(), encoding="utf-8")
