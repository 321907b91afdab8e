"""Problems that people have reported or asked about in public, and the tests of each problem.

``write_readme.py`` writes them into tests/README.md.
"""

from __future__ import annotations

CASES: dict[str, dict[str, tuple[str, ...]]] = {
    "Environments": {
        "A notebook sets an `MPLBACKEND` of another environment, or a `matplotlibrc` asks for LaTeX.": (
            "test_a_command_works_with_all_hostile_settings_at_once",
            "test_matplotlib_can_be_imported_with_any_value_of_mplbackend",
            "test_a_figure_does_not_depend_on_the_users_style",
            "test_a_shell_command_in_a_notebook_trains",
        ),
        "`KERAS_BACKEND` or `keras.json` is set for another project.": (
            "test_settings_of_keras_do_not_reach_a_command",
            "test_a_function_called_from_python_names_the_keras_setting_it_refuses",
            "test_a_keras_json_that_keras_cannot_read_is_named",
        ),
        "A container has no `HOME` or a read-only one, 64 MB of `/dev/shm`, or another user.": (
            "test_commands_work_as_in_a_container",
            "test_commands_work_with_a_home_folder_that_is_read_only",
            "test_without_a_home_the_cache_lies_in_the_temporary_folder",
        ),
        "The locale is not UTF-8, or `PYTHONIOENCODING` is set.": (
            "test_every_command_has_help_in_a_hostile_environment",
            "test_a_folder_with_an_umlaut_can_be_made_in_a_locale_without_utf_8",
        ),
        "`TF_CPP_MIN_LOG_LEVEL=3` is set, so TensorFlow must log nothing.": (
            "test_with_tf_cpp_min_log_level_3_tensorflow_logs_nothing",
        ),
        "The name of a folder is not UTF-8.": ("test_a_path_that_is_not_utf_8_is_refused_by_name",),
        "A path in a flag begins with `~`, as in `--data_dir=~/data`.": (
            "test_a_tilde_is_the_home_folder_in_every_path_flag",
            "test_a_tilde_in_a_flagfile_is_the_home_folder",
            "test_a_tilde_without_a_home_is_refused",
        ),
        "In any command, the user types Ctrl-C, the disk is full, or an output cannot be made.": (
            "test_ctrl_c_gives_one_line",
            "test_a_full_disk_gives_one_line_that_names_the_flag",
            "test_an_output_that_cannot_be_made_gives_one_line_that_names_the_flag",
            "test_a_full_or_closed_stream_gives_no_traceback",
        ),
        "The file system has no `fsync` of folders, or no locks.": (
            "test_a_folder_that_cannot_be_flushed_is_no_error",
            "test_a_file_system_without_locks_gives_a_warning",
        ),
    },
    "Folders and tables": {
        "The class folders are in folders named `train`, `val` and `test`.": (
            "test_split_folders_are_the_split",
            "test_a_test_folder_without_a_validation_folder_is_kept_for_the_end",
            "test_names_of_split_folders_may_contain_images_or_set",
        ),
        "`--data_dir` is the parent of the right folder, or several folders have the same classes.": (
            "test_one_wrapping_folder_is_entered_and_printed",
            "test_a_validation_folder_may_lie_in_another_folder",
            "test_folders_that_all_have_the_same_subfolders_are_no_classes",
        ),
        "The data folder also has `runs/` (with `--data_dir=.`) or folders of the system.": (
            "test_system_folders_are_no_classes_and_are_printed",
            "test_what_seedtf_wrote_is_no_class",
            "test_hidden_folders_are_no_classes",
        ),
        "Tables differ in header, separator, encoding, ids and spelling of paths.": (
            "test_the_header_names_that_people_use_are_known",
            "test_the_separator_is_recognised_and_printed",
            "test_the_encodings_of_excel_are_read",
            "test_a_table_may_lack_a_header",
            "test_ids_without_suffix_are_found",
            "test_paths_in_any_spelling_are_found",
            "test_further_columns_are_ignored",
            "test_an_ambiguous_column_is_refused_with_the_candidates",
        ),
        "Labels are integers, and their names are elsewhere.": (
            "test_integer_labels_sort_as_numbers",
            "test_a_name_is_preferred_to_the_number_of_a_class",
            "test_numbers_get_the_names_in_a_file_beside_the_table",
        ),
        "A table has two labels for a file, or several labels in a cell.": (
            "test_an_unusable_table_is_refused_in_one_line",
            "test_several_labels_in_a_cell_are_refused",
            "test_a_label_of_several_words_is_one_label",
        ),
        "A table has rows for train, val and test.": (
            "test_a_split_column_gives_the_split_and_test_rows_are_kept_for_the_end",
            "test_the_test_rows_of_a_split_csv_are_neither_trained_nor_validated_on",
            "test_the_test_rows_of_a_table_are_evaluated",
        ),
        "Accents are composed (NFC) in the names of one folder, separate (NFD) in those of another.": (
            "test_composed_accents_in_train_and_separate_ones_in_val_name_one_class",
            "test_class_folders_with_composed_and_separate_accents_are_one_class",
        ),
        "The name of a class has a line separator.": (
            "test_any_class_name_can_be_written_and_read_back",
            "test_a_path_with_control_characters_is_shown_in_one_line",
        ),
        "There are thousands of classes.": (
            "test_the_confusion_matrix_of_many_classes_is_an_image_of_bounded_size",
            "test_the_report_of_ten_thousand_classes_is_written",
        ),
        "A class has one image, or only training images, or there are fewer images than in a batch.": (
            "test_one_training_image_of_a_class_is_enough_where_the_split_is_given",
            "test_the_default_batch_shrinks_to_the_training_images_and_says_so",
        ),
        "Labels are in `metadata.csv` or `.jsonl` (Hugging Face), `_classes.csv` (Roboflow) or the CSV "
        "file of Label Studio.": (
            "test_metadata_csv_beside_the_images_gives_the_labels",
            "test_metadata_jsonl_gives_the_labels",
            "test_metadata_in_every_folder_of_a_split_gives_the_split",
            "test_roboflows_table_has_one_column_for_each_class",
            "test_the_paths_of_label_studio_are_found",
        ),
        "The suffix of an image is `.jfif`, `.JPG_large`, wrong or missing; a class has no images.": (
            "test_an_image_is_found_by_its_first_bytes_whatever_its_name",
            "test_every_layout_finds_images_without_a_suffix",
            "test_other_files_are_counted_and_a_stray_image_is_a_fault",
            "test_a_folder_without_an_image_is_printed_as_no_class",
        ),
        "`--data_dir` is an archive, which may be hostile.": ("test_cases_archives.py",),
        "Any tree of folders is read in its own layout, or refused.": ("test_cases_trees.py",),
        "Any command line ends with a result or in one line.": ("test_cases_command_lines.py",),
    },
    "After a training": {
        "A user wants to train a finished run for 20 more epochs.": (
            "test_continue_starts_a_new_run_from_the_best_weights_and_the_split",
            "test_what_cannot_be_continued_is_refused",
        ),
        "The same command is given again, with `--resume`.": (
            "test_resume_without_a_value_takes_the_run_in_run_dir",
            "test_the_same_command_resumes_with_relative_weights",
        ),
        "`--weights` names a run folder.": ("test_weights_may_be_a_run_folder",),
        "`evaluate` or `predict` gets a checkpoint in place of a run.": (
            "test_predict_takes_a_checkpoint_inside_a_run",
            "test_any_keras_file_and_the_folder_of_checkpoints_lead_to_the_run",
        ),
        "Two folders with the same name are evaluated.": (
            "test_reports_on_two_folders_of_the_same_name_are_both_kept",
        ),
        "A sample submission has ids without suffix, or one column for each class.": (
            "test_ids_without_suffix_and_with_folders_are_matched",
            "test_one_column_for_each_class_receives_the_probabilities",
        ),
        "A pattern is quoted, or a file is named twice, once perhaps through a link.": (
            "test_a_quoted_pattern_is_expanded",
            "test_each_file_comes_once_in_the_order_given",
        ),
        "A flag is written in the style of another tool.": (
            "test_a_flag_in_another_style_is_answered_with_what_to_type",
        ),
        "`lr_find`, `tune` or `preview` gets a tiny folder.": (
            "test_lr_find_shrinks_the_default_batch_as_train_does",
            "test_the_flags_of_a_trial_leave_out_the_default_batch_size",
            "test_preview_draws_a_folder_of_four_images_and_needs_data_dir",
        ),
    },
    "Images": {
        "A file has two EXIF blocks or a late one, an orientation of another type or in XMP, CMYK "
        "without a marker, alpha (WebP, GIF) or an animation. Or it is a BMP file with a tail, a "
        "palette or 16 bits, or a TIFF, AVIF or PGM file.": (
            "test_a_file_is_shown_as_pillow_shows_it_or_refused",
            "test_orientation_and_transparency_change_the_pixels",
        ),
        "An export gives the same pixels for a file as training, or the same refusal.": (
            "test_an_exported_graph_gives_the_pixels_and_statuses_of_training",
            "test_graph_and_python_agree_on_hostile_files",
            "test_graph_and_python_agree_on_damaged_files",
        ),
        "Frames, chunks or bytes of a file hide how large the image is.": (
            "test_only_the_first_frame_of_a_gif_is_decoded",
            "test_decompression_bombs_and_an_empty_file_are_refused_with_the_right_fault",
            "test_an_avif_of_900_overlapping_or_empty_items_is_refused_quickly",
            "test_a_png_must_start_with_its_header_chunk",
            "test_the_bytes_ff_00_are_skipped_and_have_no_length_field",
            "test_a_graph_refuses_an_image_whose_header_states_another_size",
        ),
        "A file has 64 kB of nearly empty scans or of compressed texts.": (
            "test_jpeg_scans_and_the_first_gif_frame_are_limited",
            "test_compressed_texts_are_not_decompressed",
        ),
        "Some images exceed the limit of pixels of an export.": (
            "test_a_format_that_disagrees_with_the_model_is_left_out_and_the_rest_exported",
        ),
        "A file has 64 kB of tiny parts, which might block a server.": (
            "test_a_file_of_many_tiny_parts_is_parsed_in_50_ms_of_processor_time",
        ),
        "An image has 100 megapixels and transparency.": (
            "test_every_hostile_file_gives_an_image_or_a_refusal",
            "test_a_graph_decodes_large_images_one_at_a_time",
        ),
        "Photographs are HEIC files, as iPhones write them.": (
            "test_a_heic_photograph_decodes_to_nearly_the_encoded_pixels",
            "test_without_its_extra_a_heic_file_is_refused_with_what_to_install",
        ),
        "Images are not square.": (
            "test_every_value_of_fit_resizes_as_tensorflow_does",
            "test_pad_and_crop_keep_the_aspect_ratio",
            "test_every_value_of_fit_gives_the_same_pixels_alone_and_in_a_batch",
        ),
    },
}
