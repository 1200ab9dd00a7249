"""Files that are not taken in, in words."""

from dlassets.images.kinds import in_words


def test_each_kind_of_file_that_is_not_taken_in_is_counted_and_named_with_what_to_do() -> None:
    names = ["a.jpg", "b.HEIC", "c.avif", "1.cr2", "2.NEF", "3.dng", "4.nef", "film.mov", "x.txt", "y.xml", "LICENSE"]

    assert in_words(names) == [
        "4 files are RAW photos (.cr2, .dng, .nef): export them as JPEG or TIFF.",
        "3 files are of no kind that is known as a photo (.txt, .xml, no ending).",
        "1 file is a video (.mov): save the frames that you want as JPEG.",
    ]
    assert in_words(["scan.pdf"]) == ["1 file is a PDF document (.pdf): export its pages as JPEG or PNG."]
    assert in_words([]) == []


def test_photos_whose_format_is_off_are_counted_and_say_what_turns_it_on(lacking) -> None:
    with lacking("heif"):
        (heic, avif) = in_words(["a.heic", "b.HEIF", "c.jpg", "d.avif"], ("JPEG", "HEIC"))

    assert heic.startswith("2 files are HEIC (.heic, .heif), and HEIC is off: reading it needs the extra heif")
    assert "pip install 'dlassets[heif]'" in heic
    assert avif == "1 file is AVIF (.avif), and AVIF is off: name it in ingest.formats, and these photos come in."


def test_of_many_endings_some_are_shown() -> None:
    (sentence,) = in_words([f"file.{letter}" for letter in "abcdefg"])

    assert sentence == "7 files are of no kind that is known as a photo (.a, .b, .c, .d, .e, …)."
