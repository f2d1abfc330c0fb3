"""Users read in English why a download failed; what the hub's client says, in its own language, is in the log."""

import errno

import pytest
from modelscope_hub import errors
from requests.exceptions import ConnectTimeout

from src.download import reason


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (errors.ServerError("服务器内部错误", status_code=502), "HTTP 502 Bad Gateway"),
        (errors.APIError("请求失败", status_code=499), "HTTP 499"),
        (errors.RequestTimeoutError("请求超时"), "no answer in time"),
        (ConnectTimeout("连接超时"), "no answer in time"),
        (errors.NetworkError("网络连接失败"), "the server cannot be reached"),
        (errors.FileSizeMismatchError("文件大小不一致"), "what came is not what the listing has"),
        (OSError(errno.ENOSPC, "磁盘已满"), "No space left on device"),
        (errors.NotSupportedError("不支持"), "NotSupportedError"),
    ],
)
def test_the_reason_is_english_and_the_clients_words_are_in_the_log(tmp_path, error, text):
    reason.keep_log(tmp_path, 30, 0)
    handler = reason._log.handlers[-1]
    try:
        assert reason.english(error) == text
    finally:
        reason._log.removeHandler(handler)
        handler.close()
    assert str(error) in (tmp_path / reason.FILE).read_text()


def test_a_folder_without_room_for_the_log_changes_nothing(tmp_path):
    reason.keep_log(tmp_path / "absent", 30, 0)
    handler = reason._log.handlers[-1]
    try:
        assert reason.english(errors.NetworkError("网络连接失败")) == "the server cannot be reached"
    finally:
        reason._log.removeHandler(handler)


def test_the_log_takes_no_more_room_than_a_log_of_the_servers(tmp_path):
    reason.keep_log(tmp_path, 30, 40_000)
    handler = reason._log.handlers[-1]
    try:
        for number in range(300):
            reason.english(errors.ServerError(f"{number} {'x' * 1000}", status_code=502))
    finally:
        reason._log.removeHandler(handler)
        handler.close()
    files = list(tmp_path.glob(f"{reason.FILE}*"))
    assert sum(path.stat().st_size for path in files) <= 40_000
    assert any("299 x" in path.read_text() for path in files), "the newest stay"
