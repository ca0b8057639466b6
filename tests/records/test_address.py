import pytest

from records.address import label, parse_address


@pytest.mark.parametrize(
    ("url", "driver"),
    [
        ("sqlite:////srv/books.db", "sqlite+pysqlite"),
        ("mariadb://u:p@h/d", "mariadb+pymysql"),
        ("mysql://u:p@h/d", "mysql+pymysql"),
        ("mysql+pymysql://u:p@h/d", "mysql+pymysql"),
        ("postgresql://u:p@h/d", "postgresql+psycopg"),
        ("postgresql+psycopg://u:p@h/d", "postgresql+psycopg"),
    ],
)
def test_a_url_gets_the_driver_that_is_installed(url, driver):
    assert parse_address(url).drivername == driver


@pytest.mark.parametrize(
    "url",
    [
        "",
        "books.db",
        "oracle://u:s3cret@h/d",
        "mysql+mysqldb://u:s3cret@h/d",
        "mysql://u:s3cret@h:port/d",
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///books.db?mode=rwc",
    ],
)
def test_a_url_that_cannot_work_is_refused_without_showing_a_password(url):
    with pytest.raises(ValueError, match=r"^database: ") as raised:
        parse_address(url)
    assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("sqlite:////srv/books.db", "SQLite file /srv/books.db"),
        (
            "mariadb://u:s3cret@db.example:3307/library?x=s3cret",
            "mariadb database library at db.example:3307",
        ),
        ("postgresql://u@/library", "postgresql database library at localhost"),
    ],
)
def test_a_label_names_host_and_database_and_no_secret(url, name):
    assert label(parse_address(url)) == name
