"""The pages as a browser gets them, of a small lake, of none, and of one that an earlier release made."""

import html
import io
import re
from pathlib import Path
from urllib.parse import quote

import pytest
from PIL import Image
from starlette.testclient import TestClient

from dlassets.monitoring.views.mistakes import PAGE
from dlassets.settings import Settings, UiSettings
from dlassets.web.pages.app import create_app
from dlassets_tests.earlier import unpack
from dlassets_tests.servers import free_port
from dlassets_tests.tables import image_id, put
from dlassets_tests.web.small_lake import HAT, HOSTILE, PLAIN, SAYS_MUG, WHY, WHY_NOT, SmallLake, small_lake

OWN = "http://127.0.0.1:4000"
PAGES = ("/", "/wrong", "/photo", "/photo?q=a", "/requests", "/contradictions", "/compare", "/labeling")


def client_of(settings: Settings) -> TestClient:
    return TestClient(create_app(settings), base_url=OWN)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> SmallLake:
    return small_lake(tmp_path_factory.mktemp("small") / "lake")


@pytest.fixture(scope="module")
def pages(small) -> TestClient:
    return client_of(small.settings)


def text_of(page: str) -> str:
    """Return what of a page is read: without tags, each run of white space as one space."""
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def links(page: str, start: str) -> list[str]:
    found = (html.unescape(link) for link in re.findall(r'href="([^"]*)"', page))
    return [link for link in found if link.startswith(start)]


def names(page: str) -> list[str]:
    """Return the names of the photos on a page's cards, in order."""
    return [html.unescape(name) for name in re.findall(r'<a class="card".*?<img [^>]*alt="([^"]*)"', page, re.DOTALL)]


def name(path: str) -> str:
    return path.rpartition("/")[2]


def test_the_first_page_says_who_is_champion_and_why_and_why_others_are_not(pages):
    page = pages.get("/").text

    said = text_of(page)
    assert f"image_classifier version 2 Why: {WHY}." in said
    assert "90.0% of 10 test photos right 95% interval 80.0% to 95.0%" in said
    assert f"Not promoted: {WHY_NOT}." in said
    until = "to 2026-01-02 00:00 UTC: version 2 took its place. It had come with: there was no champion"
    assert f"Was champion from 2026-01-01 00:00 UTC {until}" in said
    assert links(page, "http://127.0.0.1:5000/#/models/image_classifier/versions/2")
    assert links(page, "http://127.0.0.1:3000/assets/validated_version")


def test_the_first_page_counts_and_links_what_there_is(pages):
    page = pages.get("/").text

    said = text_of(page)
    for count in ("8 photos", "4 with a label 4 test", "1 scored", "2 wait for people 1 answered", "1 quarantined"):
        assert count in said
    assert "3 of 4 photos of test and validation" in said
    assert {"/wrong", "/requests", "/photo", "/files/reports/image_gallery/index.html"} <= {*links(page, "/")}


def test_wrong_photos_of_the_champion_come_surest_first_with_what_was_said(pages):
    page = pages.get("/wrong").text

    assert names(page) == [name(path) for path in HOSTILE[:3]]
    said = text_of(page)
    assert "Version 2 was wrong on 3 of 4 test and validation photos" in said
    assert "mug 90.0% is labelled hat" in said
    assert page.count("data:image/jpeg;base64,") == 3


def test_wrong_photos_are_of_the_split_the_classes_and_the_model_that_are_asked_for(small, pages):
    validation = pages.get("/wrong?split=validation").text
    assert names(validation) == [name(HOSTILE[2])]
    (of_a_pair,) = links(pages.get("/wrong").text, "/wrong?version=2&label=2&predicted=1")
    assert names(pages.get(of_a_pair).text) == [name(HOSTILE[2])]
    assert names(pages.get("/wrong?label=2&predicted=2").text) == []
    assert "Version 1 was wrong on 0 of 4" in text_of(pages.get("/wrong?version=1").text)
    assert "Nothing is written down of what version 3 said" in text_of(pages.get("/wrong?version=3").text)
    assert names(pages.get(f"/wrong?run={small.runs[1]}").text) == names(pages.get("/wrong").text)


def test_two_versions_are_compared_with_the_photos_that_they_differ_on(pages):
    page = pages.get("/compare").text

    said = text_of(page)
    assert "Versions 2 and 1 say the same of 0 of 1 photos (0.0%); their mean confidence is 0.520 and 0.610." in said
    assert "1 mug by version 2, hat by version 1" in said
    assert names(page) == ["waits.jpg"]
    assert page.count("data:image/jpeg;base64,") == 1
    assert text_of(pages.get("/compare?a=1&b=2").text).count("1 hat by version 1, mug by version 2") == 1
    for question, status in (("a=1&b=9", 404), ("a=x", 400), ("a=2&b=2", 200)):
        assert pages.get(f"/compare?{question}").status_code == status


def test_what_labelling_bought_is_said_by_version_with_its_intervals_its_queue_its_people_and_its_cost(pages):
    page = pages.get("/labeling").text

    said = text_of(page)
    assert "As of 2026-01-31 12:00 UTC." in said
    assert "13 answered of 20 asked, 0 withdrawn" in said
    assert "2 wait half of them for 90.0 minutes, one for 3.0 days" in said
    assert "2.0 hours until half were answered nine of ten within 25.0 hours" in said
    assert "90.0 seconds of work half took less than 8.0 seconds; of 4 answers nobody measured it" in said
    assert "1.50 is what measured work cost 0.125 a label" in said
    second = "2 120 of 700 photos unknown 50.0% of 12 90.0% of 4 unknown +1.25 (-1.00 to +3.00)"
    assert f"{second} since the first version +2.00 12.50 1 unknown 80.0% of 10" in said
    assert 'aria-label="90.0%, between 50.0% and 99.0%"' in page
    assert "Of the requests of photos chosen by chance, 75.0% are answered." in said
    assert "2026-01-26 60.0% of 10" in said
    assert "2026-01-31 3 0 0" in said
    assert "<i>Ann</i> 12 did not say who 1" in said
    assert "Service Answers page 13" in said


@pytest.mark.parametrize(
    ("question", "status"),
    [("version=9", 404), ("version=x", 400), ("label=1e9", 400), ("split=train", 400), (f"page={'9' * 18}", 200)],
)
def test_what_cannot_be_asked_is_refused_in_a_sentence(pages, question, status):
    assert pages.get(f"/wrong?{question}").status_code == status


def test_more_mistakes_than_fit_are_on_further_pages(tmp_path, lake):
    rows = [
        {"run_id": "many", "path": f"labeled/{n:03}.jpg", "image_id": image_id(str(n)), "split": "test"}
        | {"confidence": 1 - n / 1000}
        | HAT
        | SAYS_MUG
        for n in range(PAGE + 5)
    ]
    put(lake, "evaluated_rows", *rows)
    client = client_of(Settings(root=lake.root))

    first = client.get("/wrong?run=many").text
    (further,) = links(first, "/wrong?run=many&page=2")
    shown = [re.findall(r"(\d{3})\.jpg<br>", page) for page in (first, client.get(further).text)]
    assert shown[0] + shown[1] == [f"{n:03}" for n in range(PAGE + 5)]
    assert "page 1 of 2" in text_of(first)


@pytest.mark.parametrize("text", ["plain.jpg", "PLAIN", "001.hat/pl", " plain "])
def test_a_photo_is_found_by_a_part_of_its_path_without_regard_to_case(pages, text):
    assert names(pages.get("/photo", params={"q": text}).text) == ["Plain.JPG"]


def test_a_photo_is_found_by_its_image_id_a_request_and_a_file_that_was_refused(small, pages):
    by_id = pages.get("/photo", params={"q": small.image_id(PLAIN[0])[:12]}).text
    assert names(by_id) == ["Plain.JPG"]
    assert names(pages.get("/photo?q=a1").text)[:1] == ["waits.jpg"]
    refused = pages.get("/photo", params={"q": "bad"}).text
    assert "not_an_image" in text_of(refused)
    (link,) = links(refused, "/photo?path=")
    assert "Quarantined Why What was found When not_an_image <b>no</b> picture" in text_of(pages.get(link).text)
    assert "Nothing has “nowhere”" in text_of(pages.get("/photo?q=nowhere").text)
    assert pages.get("/photo?path=nowhere").status_code == 404


def test_a_photos_page_says_what_each_model_and_each_person_said(pages):
    waits = text_of(pages.get("/photo?path=unlabeled/waits.jpg").text)
    assert "version 2 champion mug then hat 48.0% 52.0% a prediction" in waits
    assert "version 1 hat 61.0% a prediction" in waits
    assert waits.count("a prediction") == 2
    assert "asked open the model thought mug , 52.0% sure (margin) batch v2-b" in waits
    assert "Same bytes unlabeled/copy.jpg" in waits

    tested = text_of(pages.get("/photo", params={"path": HOSTILE[0]}).text)
    assert "Label hat by its folder" in tested
    assert "version 2 champion mug wrong: labelled hat 90.0% a test photo" in tested
    assert "version 1 hat right 90.0% a test photo" in tested

    answered = text_of(pages.get("/photo", params={"path": HOSTILE[4]}).text)
    assert "answered accepted 001.hat <i>Ann</i>" in answered
    assert "answered refused <u>cap</u> unknown class Bob" in answered
    assert "gone from its landing zone 2026-01-31 12:00 UTC" in text_of(pages.get(f"/photo?path={PLAIN[0]}").text)


def test_what_waits_for_people_is_shown_least_sure_first_with_its_contact_sheet(small, pages):
    page = pages.get("/requests").text

    assert names(page) == [name(HOSTILE[3]), "waits.jpg"]
    said = text_of(page)
    assert "2 photos wait for a label, in 1 batch; 1 have been answered, and 1 answers were refused." in said
    assert small.lake.answers in said
    (sheet,) = links(page, "/files/labeling/requests/v2-b/index.html")
    assert pages.get(sheet).status_code == 200
    assert "v1-a" not in said


def test_where_a_person_contradicts_a_folder_both_are_shown_as_text(lake):
    settings, hostile = Settings(root=lake.root), "<b>no</b><img src=x onerror=alert(1)>"
    assert "Nowhere:" in client_of(settings).get("/contradictions").text
    put(lake, "classes", {"label": 1, "name": hostile}, {"label": 2, "name": "hat"})
    put(
        lake,
        "labeled_images",
        {"path": f"labeled/{hostile}.jpg", "label": 2, "label_name": "hat", "contradicts": 1, "annotator": hostile},
        {"path": "labeled/hat.jpg", "label": 2, "label_name": "hat", "annotator": "Ada"},
    )

    page = client_of(settings).get("/contradictions").text
    assert f"hat , not {hostile} {hostile}," in text_of(page)
    assert hostile not in page
    assert page.count('class="card"') == 1
    assert links(client_of(settings).get("/requests").text, "/contradictions")


def test_where_to_answer_on_a_page_is_a_link_where_one_is_always_there_else_how_to_open_it(small, pages):
    assert "dlassets label opens it, and prints its address." in text_of(pages.get("/requests").text)

    ui = UiSettings(label="https://lake.example.com/label/")
    linked = client_of(small.settings.model_copy(update={"ui": ui})).get("/requests").text
    assert links(linked, "https://lake.example.com/label/") == ["https://lake.example.com/label/"]


def test_no_name_of_a_file_or_class_or_person_becomes_part_of_a_page(pages):
    of_photos = [f"/photo?{asked}={quote(path)}" for path in HOSTILE for asked in ("path", "q")]
    for page in (*PAGES, "/photo?q=jpg", *of_photos):
        answer = pages.get(page)
        assert answer.status_code == 200
        for tag in ("<script", "<i>", "<u>", "<b>no", "<b>bad", "<img src=x", " onerror='"):
            assert tag not in answer.text, page
    for path in HOSTILE:
        (link,) = {*links(pages.get("/photo", params={"q": path}).text, "/photo?path=")}
        assert name(path).split() == text_of(re.search("<h1.*?</h1>", pages.get(link).text, re.DOTALL)[0]).split()


def test_a_picture_is_encoded_anew_and_never_a_files_own_bytes(small, pages):
    path = HOSTILE[0]

    picture = pages.get(f"/photo/{small.image_id(path)}.jpg")

    assert picture.headers["content-type"] == "image/jpeg"
    shown = Image.open(io.BytesIO(picture.content))
    assert (shown.format, shown.size) == ("JPEG", (120, 80))
    assert small.pictures[path].startswith(b"\x89PNG")
    for unknown in ("0" * 64, "x", "..%2f..%2fetc%2fpasswd", "0" * 64 + "'"):
        assert pages.get(f"/photo/{unknown}.jpg").status_code == 404


def test_reports_and_contact_sheets_are_served_and_nothing_in_them_runs(small, pages):
    for path in ("reports/image_gallery/index.html", "labeling/requests/v2-b/index.html"):
        answer = pages.get(f"/files/{path}")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["content-security-policy"].startswith("sandbox allow-same-origin; default-src 'none'")
        assert "script" not in answer.headers["content-security-policy"]
    photo = pages.get("/files/labeling/requests/v2-b/a1.jpg")
    assert photo.headers["content-type"] == "image/jpeg"

    drawing = Path(small.lake.requests, "v2-b", "drawing.svg")
    drawing.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    answer = pages.get("/files/labeling/requests/v2-b/drawing.svg")
    assert (answer.headers["content-type"], answer.headers["content-disposition"]) == (
        "application/octet-stream",
        "attachment",
    )


@pytest.mark.parametrize(
    "path",
    [
        "mlflow/mlflow.db",
        "tables/raw_images/_delta_log/00000000000000000000.json",
        "landing/labeled/x.jpg",
        "reports",
        "reports/",
        "reports/image_gallery",
        "reports/nothing.html",
        "reports/../mlflow/mlflow.db",
        "reports/%2e%2e/mlflow/mlflow.db",
        "reports/..%2fmlflow%2fmlflow.db",
        "reports//etc/passwd",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "reports/.hidden.html",
        "reports/a%00b",
        "reports/linked.html",
        "reports/linked/mlflow.db",
        "reportsbeside/secret.html",
        "labeling/answers/secret.html",
        "reports/" + "x" * 300,
    ],
)
def test_nothing_else_of_a_lake_is_served_by_whatever_path(small, pages, path):
    reports = Path(small.lake.reports)
    (reports / ".hidden.html").write_text("secret")
    if not (reports / "linked").exists():
        (reports / "linked").symlink_to(small.lake.mlflow)
        (reports / "linked.html").symlink_to(Path(small.lake.mlflow, "mlflow.db"))
    for beside in ("reportsbeside", "labeling/answers"):
        secret = Path(small.lake.root, beside, "secret.html")
        secret.parent.mkdir(parents=True, exist_ok=True)
        secret.write_text("secret")

    answer = pages.get(f"/files/{path}")

    assert answer.status_code == 404
    assert b"SQLite" not in answer.content
    assert "secret</" not in answer.text


def test_every_answer_says_what_a_browser_may_do_with_it(small, pages):
    for page in (*PAGES, "/style.css", "/nosuch", f"/photo/{small.image_id(PLAIN[0])}.jpg"):
        headers = pages.get(page).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; img-src 'self' data:; style-src 'self'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
    assert "style=" not in "".join(pages.get(page).text for page in PAGES)


def test_the_guard_stands_before_the_pages_and_nothing_can_be_sent_to_them(pages):
    foreign = pages.get("/", headers={"host": "evil.example"})
    assert foreign.status_code == 421
    assert "DLASSETS_UI__PAGES" in foreign.text
    assert pages.get("/", headers={"origin": "https://evil.example"}).status_code == 403
    embedded = {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"}
    assert pages.get("/requests", headers=embedded).status_code == 403
    followed = {"sec-fetch-site": "same-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert pages.get("/requests", headers=followed).status_code == 200
    assert {pages.post(page).status_code for page in ("/", "/photo", "/files/reports/x.html")} == {405}


def test_a_proxy_may_have_the_pages_at_a_path_of_its_own(small):
    ui = UiSettings(pages="https://lake.example.com/pages/")
    client = client_of(small.settings.model_copy(update={"ui": ui}))
    host = {"host": "lake.example.com"}

    for at in ("/", "/pages/"):
        page = client.get(at, headers=host)
        assert "/pages/wrong" in links(page.text, "/")
    assert client.get("/pages/wrong", headers=host).status_code == 200
    assert ui.page("photo", path="a b&c") == "https://lake.example.com/pages/photo?path=a+b%26c"
    assert ui.page("files/reports/a #1.html") == "https://lake.example.com/pages/files/reports/a%20%231.html"


def test_a_lake_that_is_not_there_has_pages_that_say_what_to_do_and_is_not_made(tmp_path):
    root = tmp_path / "nowhere"
    client = client_of(Settings(root=str(root)))

    answers = {page: client.get(page) for page in PAGES}

    assert {answer.status_code for answer in answers.values()} == {200}
    assert "This lake has no photos" in answers["/"].text
    assert "make demo" in answers["/"].text
    assert "No model has been trained yet" in text_of(answers["/wrong"].text)
    assert "Nothing: no request is open" in text_of(answers["/requests"].text)
    assert client.get("/photo?path=a").status_code == 404
    assert not root.exists()


def test_photos_without_a_model_are_told_what_comes_next(lake):
    put(lake, "raw_images", {"path": "unlabeled/a.jpg", "image_id": image_id("a")})

    said = text_of(client_of(Settings(root=lake.root)).get("/").text)

    assert "No model is in use" in said
    assert "None of the photos has a label yet" in said
    assert "training_pipeline" in said


def test_a_lake_of_an_earlier_release_is_shown_and_left_as_it_is(tmp_path):
    unpack(tmp_path / "lake")
    tables = sorted(path.name for path in (tmp_path / "lake" / "tables").iterdir())
    client = client_of(Settings(root=str(tmp_path / "lake")))

    answers = {page: client.get(page) for page in PAGES}

    assert {answer.status_code for answer in answers.values()} == {200}
    assert "evaluated_rows" not in tables
    assert "image_classifier version 1 Why: " in text_of(answers["/"].text)
    assert "Nothing is written down of what version 1 said" in text_of(answers["/wrong"].text)
    (photo, *_) = links(answers["/photo?q=a"].text, "/photo?path=")
    assert "What models said" in client.get(photo).text
    assert sorted(path.name for path in (tmp_path / "lake" / "tables").iterdir()) == tables


def test_a_table_that_lacks_columns_of_today_is_read_all_the_same(lake):
    import pyarrow as pa
    from deltalake import write_deltalake

    rows = pa.table({"path": ["unlabeled/a.jpg"], "reason": ["too_large"]})
    write_deltalake(lake.table("quarantined_files"), rows)

    client = client_of(Settings(root=lake.root))

    assert "1 quarantined 1 too_large" in text_of(client.get("/").text)


def test_where_mlflow_does_not_answer_the_first_page_says_so_and_counts_all_the_same(lake, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    put(lake, "raw_images", {"path": "unlabeled/a.jpg", "image_id": image_id("a")})
    away = {"tracking_uri": f"http://me:hunter2@127.0.0.1:{free_port()}"}

    client = client_of(Settings(root=lake.root, mlflow=away))

    said = text_of(client.get("/").text)
    assert "Who is champion cannot be said MLflow cannot say which models there are" in said
    assert "1 photos" in said
    assert "hunter2" not in said
    assert client.get("/wrong").status_code == 503


def test_a_table_whose_log_is_damaged_is_said_to_be_in_a_page(lake):
    put(lake, "label_requests", {"request_id": "a"})
    (Path(lake.table("label_requests")) / "_delta_log" / f"{1:020}.json").write_text("{no json")

    answer = client_of(Settings(root=lake.root)).get("/requests")

    assert answer.status_code == 503
    assert "label_requests" in text_of(answer.text)
