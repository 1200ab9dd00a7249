"""The gate as the proxy asks it, and people log in: who may what, and what is tried by those who may not."""

import base64
import re
import time
from pathlib import Path

import pytest

from dlassets.errors import DlassetsError, SettingsError
from dlassets.settings import ROLES, AccessSettings, load_settings
from dlassets.web.gate import policy
from dlassets.web.gate.app import create_app
from dlassets.web.gate.cookies import COOKIE, Cookies, new_session
from dlassets.web.gate.throttle import LONGEST_SECONDS, Throttle
from dlassets.web.gate.users import UsersFile, changed, with_new_password, with_new_token
from dlassets.web.identity import PROXY_HEADER, USER_HEADER
from dlassets_tests.web.gate.people import (
    BROWSER,
    COOKIE_SECRET,
    ROLE_OF,
    URL,
    Asker,
    add_people,
    password_of,
    settings_of,
)


@pytest.fixture(scope="module")
def users_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("users") / "users.yaml"
    add_people(path)
    return path


@pytest.fixture
def own_file(users_file, tmp_path) -> Path:
    path = tmp_path / "users.yaml"
    path.write_bytes(users_file.read_bytes())
    path.chmod(0o600)
    return path


@pytest.fixture
def asker(users_file) -> Asker:
    return Asker(settings_of(users_file))


@pytest.fixture(scope="module")
def of_people(users_file) -> dict[str, Asker]:
    """Who has logged in, by role."""
    found = {}
    for name, role in ROLE_OF.items():
        found[role] = Asker(settings_of(users_file))
        assert found[role].login(name).status_code == 303
    return found


# ---- who may what

ALL = {"viewer", "labeller", "operator", "approver"}
API = "/mlflow/api/2.0/mlflow"


@pytest.mark.parametrize(
    ("part", "method", "path", "allowed"),
    [
        ("pages", "GET", "/", ALL),
        ("pages", "GET", "/wrong?page=2", ALL),
        ("pages", "POST", "/versions/approve", {"approver"}),
        ("pages", "POST", "/versions/reject", {"approver"}),
        ("pages", "POST", "/versions/%61pprove", set()),
        ("pages", "DELETE", "/", set()),
        ("dagster", "GET", "/dagster/runs", ALL),
        ("dagster", "POST", "/dagster/graphql", ALL),  # the read-only one, to all but operators
        ("dagster", "POST", "/dagster/report_asset_materialization/a", {"operator"}),
        ("dagster", "POST", "/dagster/%67raphql/../report_asset_materialization/a", {"operator"}),
        ("mlflow", "GET", "/mlflow/", ALL),
        ("mlflow", "POST", f"{API}/runs/search", ALL),
        ("mlflow", "POST", "/mlflow/ajax-api/2.0/mlflow/experiments/search-datasets", ALL),
        ("mlflow", "POST", "/mlflow/graphql", ALL),
        ("mlflow", "POST", f"{API}/runs/create", {"operator"}),
        ("mlflow", "POST", f"{API}/registered-models/create", {"operator"}),
        ("mlflow", "PUT", "/mlflow/api/2.0/mlflow-artifacts/artifacts/1/a.png", {"operator"}),
        ("mlflow", "POST", f"{API}/registered-models/alias", {"approver"}),
        ("mlflow", "DELETE", f"{API}/registered-models/alias", {"approver"}),
        ("mlflow", "POST", f"{API}/registered-models/%61lias", set()),
        ("mlflow", "POST", f"{API}/runs/../registered-models/alias", set()),
        ("mlflow", "POST", "/mlflow//api/2.0/mlflow/registered-models/alias", set()),
        ("mlflow", "POST", f"{API}/model-versions/transition-stage", {"approver"}),
        ("mlflow", "POST", f"{API}/users/create", set()),
        ("mlflow", "PATCH", f"{API}/users/update-password", set()),
        ("mlflow", "PATCH", f"{API}/%75sers/update-password", set()),
        ("serve", "POST", "/serve/predict", ALL),
        ("serve", "POST", "/serve/v2/models/image_classifier/infer", ALL),
        ("serve", "GET", "/serve/", ALL),
        ("serve", "POST", "/serve/label/answers", {"labeller"}),
        ("serve", "POST", "/serve/%6cabel/answers", set()),
        ("serve", "POST", "/serve/webhooks/mlflow", set()),
        ("label", "GET", "/label/", ALL),
        ("label", "POST", "/label/next", {"labeller"}),
        ("label", "POST", "/label/answers", {"labeller"}),
        ("elsewhere", "GET", "/", set()),
        ("pages", "TRACE", "/", set()),
    ],
)  # fmt: skip
def test_each_role_may_what_it_is_for(of_people, part, method, path, allowed):
    answers = {role: asker.asks(part, method, path) for role, asker in of_people.items()}

    assert {role for role, answer in answers.items() if answer.status_code == 200} == allowed
    for role in ALL - allowed:
        assert answers[role].status_code == 403
        assert len(answers[role].text.strip().splitlines()) == 1


@pytest.mark.parametrize(("method", "path"), [("GET", "/projects"), ("POST", "/api/tasks/1/annotations/")])
def test_label_studio_is_for_labellers_whom_it_has_let_in(of_people, method, path):
    codes = {
        role: asker.asks("label_studio", method, f"/label-studio{path}").status_code
        for role, asker in of_people.items()
    }

    assert codes == {"viewer": 403, "labeller": 401, "operator": 403, "approver": 403}


def test_roles_come_together(own_file):
    asker = Asker(settings_of(own_file))
    with changed(own_file) as users:
        users["olga"] = with_new_password(
            users["olga"].__class__("olga", ("operator", "approver")), password_of("olga")
        )
    asker.login("olga")

    said = asker.asks("pages", "POST", "/versions/approve")
    assert (said.status_code, said.headers["X-Dlassets-Roles"]) == (200, "approver,operator")


def test_a_refusal_says_which_role_is_needed_and_whom_to_ask(of_people):
    said = of_people["viewer"].asks("pages", "POST", "/versions/approve").text

    assert said == (
        "This needs the role approver, who promotes and rejects versions; yours: viewer. An administrator gives roles: "
        "docs/access.md.\n"
    )


def test_the_proxy_learns_who_it_is_and_mlflow_an_account_that_may_as_much(of_people):
    told = {role: asker.asks("mlflow", "GET", "/mlflow/").headers for role, asker in of_people.items()}

    accounts = {role: base64.b64decode(headers["Authorization"].split()[1]) for role, headers in told.items()}
    reader, writer = b"reader:Reader-1-pass", b"writer:Writer-1-pass"
    assert accounts == {"viewer": reader, "labeller": reader, "operator": writer, "approver": writer}
    assert told["viewer"][USER_HEADER] == "vera"
    assert "Authorization" not in of_people["approver"].asks("pages", "GET", "/").headers


def test_every_role_is_said_to_do_something_and_every_part_has_a_reader():
    assert set(policy.DOES) == set(ROLES)
    assert {policy.needed(part, "GET", "/x") for part in policy.PARTS - {"label_studio"}} == {"viewer"}


# ---- those who may not


def test_nobody_is_sent_to_log_in_and_programs_are_told_how(asker):
    person = asker.asks("pages", "GET", "/wrong?page=2", **BROWSER)
    assert (person.status_code, person.headers["Location"]) == (303, "/gate/login?next=%2Fwrong%3Fpage%3D2")

    program = asker.asks("pages", "GET", "/")
    assert (program.status_code, program.headers["WWW-Authenticate"]) == (401, 'Basic realm="dlassets"')

    # A browser that is challenged would open a window of its own.
    script = asker.asks("label", "POST", "/label/next", Sec_Fetch_Mode="cors", Sec_Fetch_Site="same-origin")
    assert (script.status_code, script.headers.get("WWW-Authenticate")) == (401, None)


def test_who_asks_the_gate_past_the_proxy_learns_nothing(of_people):
    asker = of_people["approver"]

    for secret in ({}, {PROXY_HEADER: "p" * 31}):
        told = asker.client.get("/check", headers={"X-Dlassets-Part": "mlflow", "X-Forwarded-Method": "GET", **secret})
        assert told.status_code == 403
        assert "Authorization" not in told.headers


def test_headers_that_say_who_somebody_is_are_not_believed(asker):
    told = asker.asks("pages", "GET", "/", X_Dlassets_User="anna", X_Dlassets_Roles="approver")

    assert told.status_code == 401


def test_a_wrong_password_and_an_unknown_name_are_told_the_same(asker):
    wrong, unknown = asker.login("vera", "not hers at all"), asker.login("nobody", "not hers at all")

    assert wrong.status_code == unknown.status_code == 401
    assert wrong.text == unknown.text
    assert "set-cookie" not in wrong.headers


def test_an_unknown_name_takes_as_long_as_a_known_one(users_file):
    users = UsersFile(users_file)
    took = {}
    for name in ("vera", "nobody"):
        began = time.process_time()
        assert users.with_password(name, "not hers at all") is None
        took[name] = time.process_time() - began

    assert 0.2 < took["nobody"] / took["vera"] < 5


def test_after_some_wrong_passwords_the_next_waits_and_a_right_one_as_well(users_file):
    asker = Asker(settings_of(users_file, attempts=2))
    codes = [
        asker.login("vera", f"wrong {number}", **{"X-Forwarded-For": "10.0.0.1"}).status_code for number in range(3)
    ]
    right = asker.login("vera", **{"X-Forwarded-For": "10.0.0.1"})
    elsewhere = asker.login("vera", **{"X-Forwarded-For": "10.0.0.2"})

    assert codes == [401, 401, 429]
    assert (right.status_code, right.headers["Retry-After"]) == (429, "1")
    assert elsewhere.status_code == 303


def test_the_wait_grows_and_ends():
    now = [0.0]
    throttle = Throttle(3, lambda: now[0])
    waits = []
    for _ in range(16):
        while wait := throttle.seconds("vera", "10.0.0.1"):
            waits.append(wait)
            now[0] += wait
    assert waits[:5] == [1, 2, 4, 8, 16]
    assert waits[-1] == LONGEST_SECONDS

    throttle.was_right("vera", "10.0.0.1")
    now[0] += LONGEST_SECONDS
    assert [throttle.seconds("vera", "10.0.0.1") for _ in range(3)] == [0, 0, 0]


def test_many_names_of_one_address_wait_as_well():
    throttle = Throttle(2, lambda: 0.0)
    waits = [throttle.seconds(f"name {number}", "10.0.0.1") for number in range(21)]

    assert waits[:20] == [0] * 20
    assert waits[20] > 0
    assert throttle.seconds("name 1", "10.0.0.2") == 0


def cookies_of(users_file, **changes) -> Cookies:
    return Cookies(settings_of(users_file, **changes).access, COOKIE_SECRET)


def value_of(header: str) -> str:
    return header.split("=", 1)[1].split(";", maxsplit=1)[0]


@pytest.mark.parametrize(
    "forged",
    [
        "",
        "anna",
        "eyJuYW1lIjoiYW5uYSJ9.aaaa.bbbb",
        value_of(Cookies(AccessSettings(url=URL), "another secret of 32 characters.").write(new_session("anna", "x"))),
    ],
)
def test_a_forged_cookie_is_nobody_s(asker, forged):
    assert asker.asks("pages", "GET", "/", Cookie=f"{COOKIE}={forged}").status_code == 401


def test_a_changed_cookie_is_nobody_s(asker):
    asker.login("vera")
    name, rest = asker.client.cookies[COOKIE].split(".", 1)
    asker.client.cookies.clear()
    other = (
        base64.urlsafe_b64encode(base64.urlsafe_b64decode(name + "==").replace(b"vera", b"anna")).decode().rstrip("=")
    )

    assert asker.asks("pages", "GET", "/", Cookie=f"{COOKIE}={name}.{rest}").status_code == 200
    assert asker.asks("pages", "GET", "/", Cookie=f"{COOKIE}={other}.{rest}").status_code == 401


def test_a_log_in_ends_after_its_time(users_file, monkeypatch):
    asker = Asker(settings_of(users_file, session_minutes=10))
    header = asker.login("vera").headers["Set-Cookie"]
    assert "Max-Age=600; Path=/; HttpOnly; SameSite=Lax; Secure" in header
    asker.client.cookies.clear()
    cookie = f"{COOKIE}={value_of(header)}"

    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 590)
    assert asker.asks("pages", "GET", "/", Cookie=cookie).status_code == 200
    monkeypatch.setattr(time, "time", lambda: now + 610)
    assert asker.asks("pages", "GET", "/", Cookie=cookie).status_code == 401


def test_a_cookie_ends_when_its_person_logs_out_is_removed_or_has_another_password(own_file):
    for end in ("out", "removed", "password"):
        asker = Asker(settings_of(own_file))
        asker.login("vera")
        cookie = f"{COOKIE}={asker.client.cookies[COOKIE]}"
        assert asker.asks("pages", "GET", "/", Cookie=cookie).status_code == 200

        if end == "out":
            asker.client.post("/gate/logout", headers={**BROWSER, "Origin": URL})
            assert COOKIE not in asker.client.cookies
        else:
            with changed(own_file) as users:
                vera = users.pop("vera")
                if end == "password":
                    users["vera"] = with_new_password(vera, "another password")
                else:
                    removed = vera
        assert asker.asks("pages", "GET", "/", Cookie=cookie).status_code == 401, end
        if end == "removed":
            with changed(own_file) as users:
                users["vera"] = removed


def test_a_role_that_is_taken_away_is_gone_at_once(own_file):
    asker = Asker(settings_of(own_file))
    asker.login("anna")
    assert asker.asks("pages", "POST", "/versions/approve").status_code == 200

    with changed(own_file) as users:
        users["anna"] = users["anna"].__class__("anna", ("viewer",), users["anna"].password)
    assert asker.asks("pages", "POST", "/versions/approve").status_code == 403


@pytest.mark.parametrize(
    "then",
    ["https://evil.example/", "//evil.example/", "/\\evil.example/", "\\\\evil.example", "javascript:alert(1)",
     "/a\r\nSet-Cookie: x=y", "http:evil.example", "/\t/evil.example", ""],
)  # fmt: skip
def test_a_log_in_leads_to_no_other_server(asker, then):
    answer = asker.login("vera", then=then)

    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


def test_a_log_in_leads_to_where_somebody_wanted_to_go(asker):
    assert asker.login("vera", then="/wrong?page=2&q=%C3%A4").headers["Location"] == "/wrong?page=2&q=%C3%A4"


def test_no_other_site_s_page_logs_somebody_in_or_out_or_has_anything_done(asker, of_people):
    assert asker.login("vera", Origin="https://evil.example").status_code == 403
    other = {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"}
    assert of_people["operator"].asks("dagster", "POST", "/dagster/graphql", **other).status_code == 403
    logout = of_people["operator"].client.post("/gate/logout", headers={"Origin": "https://evil.example"})
    assert logout.status_code == 403
    assert of_people["operator"].asks("dagster", "POST", "/dagster/graphql").status_code == 200
    assert of_people["viewer"].asks("pages", "GET", "/", Host="evil.example").status_code == 421


def test_what_is_typed_into_the_form_is_no_html_of_its_answer(asker):
    page = asker.client.get("/gate/login", params={"next": '/"><script>alert(1)</script>'}).text

    assert "<script>" not in page
    assert re.search(r'name="next" value="/&#34;&gt;&lt;script&gt;', page)


def test_a_form_that_is_longer_than_any_name_and_password_is_not_read(asker):
    assert asker.login("x" * 20_000).status_code == 413


# ---- programs


def basic(name: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()


def test_programs_bring_a_password_or_a_token(own_file):
    with changed(own_file) as users:
        users["lars"], token = with_new_token(users["lars"])
    asker = Asker(settings_of(own_file))

    for header in (basic("lars", password_of("lars")), f"Bearer {token}"):
        told = asker.asks("label", "POST", "/label/answers", Authorization=header)
        assert (told.status_code, told.headers[USER_HEADER]) == (200, "lars")
        assert asker.asks("dagster", "POST", "/dagster/x", Authorization=header).status_code == 403
    for header in (basic("lars", "another"), f"Bearer {token}x", "Bearer ", "Basic ///", "Digest x", "Basic /w=="):
        assert asker.asks("label", "POST", "/label/answers", Authorization=header).status_code == 401
    assert token not in own_file.read_text()


def test_a_program_s_password_is_looked_at_once_and_counts_no_more_once_it_is_another(own_file):
    asker = Asker(settings_of(own_file, attempts=2))
    right = basic("lars", password_of("lars"))
    asker.asks("label", "GET", "/label/", Authorization=right)

    began = time.process_time()
    for _ in range(20):
        assert asker.asks("label", "GET", "/label/", Authorization=right).status_code == 200
    per_request = (time.process_time() - began) / 20

    began = time.process_time()
    with changed(own_file) as users:
        users["lars"] = with_new_password(users["lars"], "another password")
    assert per_request < time.process_time() - began
    assert asker.asks("label", "GET", "/label/", Authorization=right).status_code == 401


# ---- bad settings


def test_a_gate_without_its_settings_names_all_that_it_needs():
    with pytest.raises(
        SettingsError, match=r"needs access\.url, access\.cookie_secret, access\.proxy_secret, access\.use"
    ):
        create_app(load_settings({}))


def test_without_a_file_of_users_nobody_could_log_in(tmp_path):
    with (
        pytest.raises(SettingsError, match=r"dlassets users add <name>"),
        Asker(settings_of(tmp_path / "no.yaml")).client,
    ):
        pass


def test_a_file_of_users_that_anybody_reads_or_that_is_damaged_is_refused(own_file):
    own_file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod o-rwx"):
        UsersFile(own_file).all()

    own_file.chmod(0o600)
    for damage in (
        "- a list",
        "vera: {roles: [king]}",
        "vera: {roles: [viewer], password: plain-text-Qz7}",
        "a: : b",
        "vera:",
    ):
        own_file.write_text(damage)
        with pytest.raises(DlassetsError, match=r"not as `dlassets users` writes it|has the role 'king'") as raised:
            UsersFile(own_file).all()
        assert "Qz7" not in str(raised.value)


def test_a_secret_in_a_file_is_read_unless_anybody_may(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("s" * 40 + "\n")
    secret.chmod(0o640)
    variables = {"DLASSETS_ACCESS__PROXY_SECRET__FILE": str(secret), "DLASSETS_SERVING__TOKEN__FILE": str(secret)}
    settings = load_settings(variables)
    assert settings.access.proxy_secret == settings.serving.token == "s" * 40
    assert "ssss" not in str(settings)

    secret.chmod(0o644)
    with pytest.raises(
        SettingsError, match=f"access: Value error, anybody on this machine may read {secret}.*chmod o-rwx"
    ):
        load_settings({"DLASSETS_ACCESS__PROXY_SECRET__FILE": str(secret)})
    for path, problem in ((tmp_path / "none", "No such file"), (tmp_path / "empty", "is empty")):
        (tmp_path / "empty").touch(0o600)
        with pytest.raises(SettingsError, match=problem):
            load_settings({"DLASSETS_ACCESS__PROXY_SECRET__FILE": str(path)})


def test_secrets_that_could_be_guessed_are_refused():
    with pytest.raises(SettingsError, match="at least 32 characters") as raised:
        load_settings({"DLASSETS_ACCESS__COOKIE_SECRET": "Qz7fShort"})
    assert "Qz7f" not in str(raised.value)
