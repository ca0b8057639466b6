"""C-Eval's prompt, to the byte."""

import shutil

import pytest

from evals.ceval.errors import BadQuestions, ExamError
from evals.ceval.prompts import build_exam
from evals.ceval.subjects import choose_subjects
from tests.evals.exam_servers import QUESTIONS, exam_of

HEADING = "以下是中国关于计算机网络考试的单项选择题，请选出其中的正确答案。\n\n"

EXAMPLES = """\
网页浏览器访问加密网站时，默认连接服务器的哪个端口？
A. 21
B. 25
C. 80
D. 443
答案：D

把域名翻译成地址的系统是____。
A. DNS
B. FTP
C. SMTP
D. ARP
答案：A

一个IPv4地址有多少位？
A. 16
B. 32
C. 64
D. 128
答案：B

下列协议中，发送数据之前不建立连接的是____。
A. TCP
B. FTP
C. UDP
D. SSH
答案：C

交换机根据什么转发帧？
A. 域名
B. 端口号
C. 物理地址
D. 用户名
答案：C

"""

QUESTION = """\
TCP建立连接时，双方一共交换几个报文段？
A. 一个
B. 两个
C. 三个
D. 四个
答案："""


@pytest.mark.parametrize(("shots", "prompt"), [(0, HEADING + QUESTION), (5, HEADING + EXAMPLES + QUESTION)])
def test_prompts_are_those_of_c_eval_byte_for_byte(shots, prompt):
    first = exam_of(shots=shots, subjects=["computer_network"])[0]
    assert first.prompt.encode() == prompt.encode()
    assert first.key == ("computer_network", "0")


def test_a_question_of_two_lines_stays_so():
    prompt = exam_of(subjects=["civil_servant"])[3].prompt
    assert "意思最接近的是：\n（注意不是“锦上添花”）\nA. 画蛇添足\n" in prompt


def test_other_words_have_another_digest():
    digests = {one.digest for shots in (0, 5) for one in exam_of(shots=shots)}
    assert len(digests) == 2 * len(exam_of())


def test_the_dev_split_cannot_be_asked_with_itself_as_examples():
    with pytest.raises(ExamError, match=r"--split dev: must come with --shots 0"):
        exam_of("dev", shots=5)
    assert len(exam_of("dev")) == 25


def test_too_few_examples_are_refused(tmp_path):
    shutil.copy(QUESTIONS / "computer_network_val.csv", tmp_path)
    lines = (QUESTIONS / "computer_network_dev.csv").read_text(encoding="utf-8").splitlines(keepends=True)
    (tmp_path / "computer_network_dev.csv").write_text("".join(lines[:5]), encoding="utf-8")
    with pytest.raises(BadQuestions, match=r"computer_network_dev\.csv: must hold 5 examples, got 4"):
        build_exam(tmp_path, choose_subjects(["computer_network"]), "val", 5)
