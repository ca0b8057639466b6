"""Which texts training may never see: a stable twentieth, and the books of the classic example."""

import hashlib

#: One text in so many is kept for measuring.
HELD_OUT_EVERY = 20

#: The catalogue of the classic example; no title in it is ever generated.
RESERVED_TITLES: tuple[str, ...] = (
    "线性代数：从基础到前沿",
    "矩阵的魔力：线性代数的探索",
    "向量空间：线性代数的视角",
    "线性映射与变换：线性代数的应用",
    "线性代数的世界：理论与实践",
    "法语启蒙：从零开始",
    "法语语法精解：掌握核心规则",
    "法语口语实战：日常对话篇",
    "法国文化与法语：语言背后的故事",
    "法语写作技巧：从基础到精进",
    "微积分之旅：从初级到高级",
    "微积分的秘密：理解极限与导数",
    "积分的艺术：微积分的实践应用",
    "微积分的世界：函数与变化",
    "微积分探索：理论与问题解答",
    "星际穿越：时间的秘密",
    "异次元之门：平行宇宙的探索",
    "未来世界：人工智能的崛起",
    "黑洞之谜：宇宙的终极奥秘",
    "量子纠缠：微观世界的奇异现象",
    "量子力学：微观世界的奥秘",
    "相对论：时间和空间的探索",
    "粒子物理：基本粒子的研究",
    "热力学：能量和熵的平衡",
    "光学：光的性质和应用",
)


def is_held_out(text: str) -> bool:
    """Whether a title or a wish is kept for measuring: a hash of its text, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) % HELD_OUT_EVERY == 0


def is_reserved(title: str) -> bool:
    """Whether a title belongs to the classic catalogue."""
    return title in RESERVED_TITLES
