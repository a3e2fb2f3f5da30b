"""Braces, blocks, repetition, joins and parameters: what they unfold to; an answer to mistakes."""

from __future__ import annotations

import pytest

from lanewise.errors import NetError
from lanewise.net.expand import MOST_LAYERS
from lanewise.net.expression import evaluate, round8
from lanewise.net.layers import Conv, Input
from lanewise.net.parse import parse
from lanewise.net.show import show


def flat(text: str) -> str:
    """The canonical text of a net over one 8×8 map, without its input, lines as `; `."""
    return "; ".join(show(parse(f"input 1x8x8\n{text}")).splitlines()[1:])


UNFOLDED = [
    ("relu; tanh; add relu1 tanh1", "relu; tanh; add relu1 tanh1"),
    ("a: relu; b: tanh; multiply b a", "a: relu; b: tanh; multiply b a"),
    ("relu; tanh; gelu from relu1; concat tanh1 gelu1", None),
    ("residual { relu }", "relu; add relu1 input"),
    ("residual { relu } { tanh }", "relu; tanh from input; add relu1 tanh1"),
    ("residual { relu } { }", "relu; add relu1 input"),
    ("relu; residual { tanh; gelu }; silu", "relu; tanh; gelu; add gelu1 relu1; silu"),
    ("concat { relu } { tanh }", "relu; tanh from input; concat relu1 tanh1"),
    ("concat { } { relu } { tanh }", "relu; tanh from input; concat input relu1 tanh1"),
    ("multiply { } { globalavg; sigmoid }", "globalavg; sigmoid; multiply input sigmoid1"),
    ("add { residual { relu } } { tanh }", None),
    ("j: residual { relu }; tanh from j", "relu; j: add relu1 input; tanh"),
    ("3 x { relu }", "relu; relu; relu"),
    ("3 X { relu }", "relu; relu; relu"),
    ("0 x { relu }; tanh", "tanh"),
    ("(2>1) x { relu }; (1>2) x { tanh }", "relu"),
    ("3 x i { conv i+1 k1 }", "conv 1 k1; conv 2 k1; conv 3 k1"),
    ("2 x i { 2 x J { conv 1+2*i+j k1 } }", "conv 1 k1; conv 2 k1; conv 3 k1; conv 4 k1"),
    ("2 x { 2 x { relu }; tanh }", "relu; relu; tanh; relu; relu; tanh"),
    ("2 x { c: relu; tanh; add tanh_ c }".replace("tanh_", "t").replace("tanh;", "t: tanh;"), None),
    ("last: 3 x { relu }; tanh; add tanh1 last", "relu; relu; last: relu; tanh; add tanh1 last"),
    ("relu; same: 0 x { tanh }; tanh; add tanh1 same", "relu; tanh; add tanh1 relu1"),
    ("block pair { relu; tanh }; pair; pair", "relu; tanh; relu; tanh"),
    ("block b n { conv n k1 }; b 2; b n=3; b 1+1", "conv 2 k1; conv 3 k1; conv 2 k1"),
    ("block b n=4 m=n*2 { conv m k1 }; b; b 3; b m=1", "conv 8 k1; conv 6 k1; conv 1 k1"),
    ("block b { c: relu }; b; b; x: b", "c: relu; c_2: relu; c_3: relu"),
    ("block b { relu }; x: b; tanh; add tanh1 x", "x: relu; tanh; add tanh1 x"),
    ("block b { relu }; a: tanh; gelu; b from a; add gelu1 relu1", None),
    ("block b { }; relu; b; tanh", "relu; tanh"),
    ("block b { relu }; block c { residual { b } }; c", "relu; add relu1 input"),
    ("BLOCK Big N { Conv N K1 }; big 2; BIG 3", "conv 2 k1; conv 3 k1"),
    ("residual\n{\n  relu\n}\n{\n  tanh\n}", "relu; tanh from input; add relu1 tanh1"),
    ("residual{relu}{tanh};gelu", "relu; tanh from input; add relu1 tanh1; gelu"),
    ("residual { # one\n relu # two }\n } # three", "relu; add relu1 input"),
]


@pytest.mark.parametrize(("text", "unfolded"), UNFOLDED)
def test_structure_unfolds(text: str, unfolded: str | None) -> None:
    found = flat(text)
    if unfolded is not None:
        assert found == unfolded
    assert flat(found.replace("; ", "\n")) == found


FAMILY = """# Somebody: Something (2020)
parameters n=2 width=0.5 size=16
variant large n=3
block unit out stride=1 {
  residual {
    conv out k3 stride stride pad 3//2
    main: relu
  } {
    (stride>1) x { conv out k1 stride(stride) }
  }
}
input 3x(size)x(size)
conv round8(32*width) k(2*n-1) pad(n-1):(n-1) groups 1
unit 16
n-1 x { unit 16 stride=2 }
dropout width/5
"""


def test_parameters_reach_every_number() -> None:
    graph = parse(FAMILY)
    assert graph.nodes[0].layer == Input(3, 16, 16)
    assert graph.nodes[1].layer == Conv(16, (3, 3), pad=((1, 1), (1, 1)))
    assert show(graph).splitlines()[2:] == [
        "conv 16 k3 pad1",
        "main: relu",
        "add main conv1",
        "conv 16 k3 stride2 pad1",
        "main_2: relu",
        "conv 16 k1 stride2 from add1",
        "add main_2 conv4",
        "dropout 0.1",
    ]


def test_lines_and_blocks_are_remembered() -> None:
    nodes = {node.name: node for node in parse(FAMILY).nodes}
    assert (nodes["conv1"].line, nodes["conv1"].within) == (13, ())
    assert (nodes["main"].line, nodes["main"].within) == (7, (("unit", 14),))
    assert (nodes["conv4"].line, nodes["conv4"].within) == (9, (("unit", 15),))
    deep = parse("block a { relu }\nblock b {\n a\n}\ninput 1x8x8\nb").output
    assert (deep.line, deep.within) == (1, (("b", 6), ("a", 3)))


def test_repeated_names_mean_the_layer_of_their_round() -> None:
    text = "block b { c: relu; d: tanh; add d c }; b; 2 x { b }; c: gelu"
    assert flat(text) == (
        "c_2: relu; d: tanh; add d c_2; c_3: relu; d_2: tanh; add d_2 c_3; "
        "c_4: relu; d_3: tanh; add d_3 c_4; c: gelu"
    )


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1+2*3", 7),
        ("(1+2)*3", 9),
        ("7//2", 3),
        ("7/2", 3.5),
        ("8/2", 4),
        ("-7%4", 1),
        ("10-3-2", 5),
        ("n>2", 1),
        ("n<=2", 0),
        ("n==3", 1),
        ("n!=3", 0),
        ("pick(n>2,8/(n-2),1/0)", 8),
        ("min(n,w,1)", 0.5),
        ("max(n)", 3),
        ("ceil(n*w)+floor(n*w)", 3),
        ("int(2.9)", 2),
        ("1e3", 1000),
        (".5", 0.5),
        ("round8(32*1.4)", 48),
        ("round8(32*0.35)", 16),
        ("round8(1)", 8),
    ],
)
def test_expressions(text: str, value: float) -> None:
    assert evaluate(text, {"n": 3, "w": 0.5}) == value


def test_round8_is_the_mobilenets_rule() -> None:
    """Multiples of 8, never 10 % below: the widths of MobileNetV2 at 0.35, 0.75 and 1.4."""
    assert [round8(c * 0.35) for c in (16, 24, 32, 64, 96, 160, 320)] == [8, 8, 16, 24, 32, 56, 112]
    assert [round8(c * 0.75) for c in (16, 24, 32, 64, 96)] == [16, 24, 24, 48, 72]
    assert [round8(c * 1.4) for c in (16, 24, 32, 64, 96)] == [24, 32, 48, 88, 136]


MISTAKES = [
    # Braces.
    ("I\nresidual {\n  relu", "n.net:2: this `{` is never closed; add a `}`"),
    ("I\nresidual {\n 2 x {\n relu\n}", "n.net:2: this `{` is never closed; add a `}`"),
    ("I\nrelu }", "n.net:2: this `}` closes nothing; remove it, or add the `{` before"),
    ("{ relu }", "n.net:1: `{` without a word before it; write `residual {`, `concat {` or "),
    (
        "I\n{ relu }",
        "n.net:1: `input` takes no braces; branches stand behind `residual`, `add`, ",
    ),
    ("I\nrelu; { tanh }", "n.net:2: `{` without a word before it; write `residual {`"),
    (
        "I\nresidual { relu } tanh",
        "n.net:2: `tanh` stands right behind `}`; put `;` or a new ",
    ),
    (
        "I\nrelu { tanh }",
        "n.net:2: `relu` takes no braces; branches stand behind `residual`, ",
    ),
    ("I\nresidul { relu }", "n.net:2: unknown layer `residul`; did you mean `residual`?"),
    (
        "I\nresidual",
        "n.net:2: write `residual { … }`, or with a projection `residual { … } { … }`",
    ),
    (
        "I\nresidual { relu } { tanh } { gelu }",
        "n.net:2: write `residual { … }`, or with a proj",
    ),
    (
        "I\nconcat { relu }",
        "n.net:2: write two or more branches, `concat { … } { … }`, or names,",
    ),
    (
        "I\nadd relu1 { tanh } { }",
        "n.net:2: write two or more branches, `add { … } { … }`, or ",
    ),
    ("residual { relu }", "n.net:1: residual has nothing to read; start with the image, like `inp"),
    ("I\n" + "residual {" * 50 + "}" * 50, "n.net:2: braces in braces 41 deep; use blocks"),
    # Repetition.
    ("I\n3x { relu }", "n.net:2: unknown layer `3x`; write a repetition as `3 x { … }`"),
    ("I\n3 x relu", "n.net:2: a repetition is written `3 x { … }`"),
    ("I\n3 x", "n.net:2: a repetition is written `3 x { … }`"),
    ("I\n3 x max { relu }", "n.net:2: a parameter cannot be called `max`; use letters, "),
    ("I\n3 x i { relu }; conv i k1", "n.net:2 conv1: number of kernels `i`; use a whole"),
    ("I\n3 x { relu } { tanh }", "n.net:2: a repetition is written `3 x { … }`"),
    ("I\n-1 x { relu }", "n.net:2: repetition `-1`; use a whole number from 0"),
    ("I\n3/2 x { relu }", "n.net:2: repetition `3/2` is 1.5; use a whole number from 0"),
    ("I\nn x { relu }", "n.net:2: repetition `n`: no parameter n; there are none"),
    (f"I\n{MOST_LAYERS} x {{ relu }}", "n.net:2: more than 20,000 layers; repeat less often"),
    ("I\n10000000 x { }", "n.net:2: more than 20,000 layers; repeat less often"),
    (
        "I\n999 x { 999 x { 0 x { relu } } }",
        "n.net:2: more than 20,000 layers; repeat less often",
    ),
    (
        "I\nx: 0 x { relu }; x: tanh",
        "n.net:2 x: the name x is taken by the input of line 1; giv",
    ),
    # Names.
    (
        "I\nrelu; add relu1 b",
        "n.net:2 add1: reads `b`, which is no layer before it; name a layer ",
    ),
    (
        "I\nrelu; tanh; add relu1 tan1",
        "n.net:2 add1: reads `tan1`, which is no layer before it; ",
    ),
    (
        "I\nadd",
        "n.net:2 add1: reads two or more layers; name them, `add a b`, or write branches, ",
    ),
    (
        "I\nrelu; concat relu1",
        "n.net:2 concat1: reads two or more layers; name them, `concat a b`",
    ),
    (
        "I\nrelu; add relu1 relu1",
        "n.net:2 add1: add reads relu1 twice; let each branch be anothe",
    ),
    (
        "I\nconcat { } { }",
        "n.net:2 concat1: concat reads input twice; let each branch be another ",
    ),
    (
        "I\nrelu from",
        "n.net:2 relu1: `from` needs one layer's name at the end, like `conv 6 k5 f",
    ),
    (
        "I\nrelu from a b",
        "n.net:2 relu1: `from` needs one layer's name at the end, like `conv 6",
    ),
    ("I\nrelu from conv1", "n.net:2 relu1: reads `conv1`, which is no layer before it; "),
    (
        "I\nrelu\ntanh from input",
        "n.net:2 relu1: nobody reads relu1; read it with `from relu1` ",
    ),
    (
        "I\na: relu\nblock b { }\ntanh\nb from a",
        "n.net:4 tanh1: nobody reads tanh1, for the net",
    ),
    (
        "I\n2 x { a: relu }; tanh; add a tanh1",
        "n.net:2 add1: reads `a`, which is no layer befor",
    ),
    (
        "I\n2 x { a: relu; a: tanh }",
        "n.net:2 a: the name a is taken by the relu; give this laye",
    ),
    # Blocks.
    (
        "I\nblock a {\n a\n}\na",
        "n.net:3: recursion: block a contains block a; for several in a ",
    ),
    (
        "block a {\n b\n}\nblock b { c }\nblock c { a }",
        "n.net:2: recursion: block a contains block b, which contains block c, which contains "
        "block a; for several in a row write `N x { … }`",
    ),
    (
        "block a {\n relu\n b }\nblock b { relu }",
        "n.net:3: block b is used before it is defined (line 4); define it above block a",
    ),
    (
        "I\na\nblock a { relu }",
        "n.net:2: block a is used before it is defined (line 3); move its",
    ),
    ("block a { }\nblock a { }", "n.net:2: block a is defined in line 1 already; give this one an"),
    ("I\nblock a n {\n conv n k1\n}\na", "n.net:5: block a needs n; call it as `a n`"),
    (
        "I\nblock a n { conv n k1 }\na 2 3",
        "n.net:3: block a takes 1 value(s), not 2; call it as",
    ),
    (
        "I\nblock a n m=1 { }\na 2 3 4",
        "n.net:3: block a takes 2 value(s), not 3; call it as `a n",
    ),
    ("I\nblock a n { }\na m=2", "n.net:3: block a has no parameter m; call it as `a n`"),
    ("I\nblock a n { }\na 1 n=2", "n.net:3: n is given twice to block a; keep one"),
    ("I\nblock a n { }\na n+1", "n.net:3: n `n+1`: no parameter n; there are none"),
    ("I\nblock a n=m { }\na", "n.net:3: n `m`: no parameter m; there are none"),
    (
        "I\nblock relu { }",
        "n.net:2: a block cannot be called `relu`, which is a word of the nota",
    ),
    ("I\nblock 2a { }", "n.net:2: a block cannot be called `2a`, which is no name"),
    ("I\nblock a n n { }", "n.net:2: block a has two parameters n; rename one"),
    (
        "I\nblock a max { }",
        "n.net:2: a parameter cannot be called `max`; use letters, digits and",
    ),
    (
        "I\nblock a",
        "n.net:2: `block a` is no definition; write it as `block NAME WIDTH STRIDE=1 {",
    ),
    ("I\nresidual { block a { } }", "n.net:2: `block` stands outside of braces; move it up"),
    (
        "I\nblock a { relu }\na { tanh }",
        "n.net:3: `a` takes no braces; branches stand behind `r",
    ),
    (
        "I\nblock a n {\n conv n k1 q2\n}\nblock b {\n a 3\n}\nb",
        "n.net:3 conv1 (block b, called in line 8, block a, called in line 6): unknown option `q2`",
    ),
    (
        "I\nrelu\nblock a {\n tanh from relu1\n}\na",
        "n.net:4 tanh1 (block a, called in line 6): reads `relu1`, which is no named layer before "
        "it in block a; a block sees its own names only",
    ),
    # Parameters.
    ("parameters n", "n.net:1: `n`; write NAME=NUMBER without spaces, like `n=3`"),
    ("parameters n=1 n=2", "n.net:1: parameter n is given twice; keep one"),
    ("parameters n=m", "n.net:1: n `m`: no parameter m; there are none"),
    ("parameters min=1", "n.net:1: a parameter cannot be called `min`; use letters, digits and _,"),
    ("I\nparameters n=1", "n.net:2: parameters stand before blocks and layers; move them up"),
    ("parameters n=1\nvariant a m=2", "n.net:2: no parameter m; it has n=1"),
    ("parameters n=1\nvariant", "n.net:2: write `variant NAME` and its settings, like `n=3`"),
    ("p: parameters n=1", "n.net:1 p: `parameters` makes no layer; remove its name or braces"),
    # Numbers.
    (
        "parameters w=1.5\nI\nconv w*3 k1",
        "n.net:3 conv1: number of kernels `w*3` is 4.5; u",
    ),
    (
        "parameters w=1\nI\nconv wd k1",
        "n.net:3 conv1: number of kernels `wd`: no parameter ",
    ),
    ("parameters w=1\nI\nconv w k(w/0)", "n.net:3 conv1: k `(w/0)`: no value: division"),
    (
        "parameters w=1\nI\nconv w+ k1",
        "n.net:3 conv1: number of kernels `w+`: makes no sense",
    ),
    ("parameters w=1\nI\nconv rd(w) k1", "n.net:3 conv1: number of kernels `rd(w)`: no"),
    (
        "parameters w=1\nI\nconv max() k1",
        "n.net:3 conv1: number of kernels `max()`: makes",
    ),
    (
        "parameters w=1\nI\nconv ceil(w,w) k1",
        "n.net:3 conv1: number of kernels `ceil(w,w)`: ",
    ),
    (
        "parameters w=1e9\nI\nconv w*w k1",
        "n.net:3 conv1: number of kernels `w*w`: too lar",
    ),
    (
        "parameters w=1\nI\nconv " + 40 * "(" + "w" + 40 * ")" + " k1",
        "n.net:3 conv1: number of ker",
    ),
    ("parameters w=1\nI\nconv " + 99 * "w+" + "ww k1", "n.net:3 conv1: number of kernels `w+w"),
    ("parameters w=0\nI\nconv w k1", "n.net:3 conv1: kernels is 0; use 1 or more"),
    (
        "parameters w=3\nI\nconv k1",
        "n.net:3 conv1: needs its number of kernels; write it li",
    ),
    ("parameters s=3\ninput 3xsxs", "n.net:2 input: shape `3xsxs`: no parameter sxs; did "),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_told_with_place_values_and_remedy(text: str, message: str) -> None:
    with pytest.raises(NetError) as caught:
        parse(text.replace("I\n", "input 1x8x8\n", 1), "n.net")
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_value_word_may_be_a_parameter_that_is_called_like_an_option() -> None:
    text = (
        "parameters k=4 stride=2\ninput 1x8x8\nconv k k3 stride stride\nconv k k k stride(stride)"
    )
    layers = [node.layer for node in parse(text).nodes]
    assert layers[1:] == [Conv(4, (3, 3), (2, 2)), Conv(4, (4, 4), (2, 2))]


def test_deep_calls_are_refused_not_crashed() -> None:
    blocks = ["block b0 { relu }"] + [f"block b{i} {{ b{i - 1} }}" for i in range(1, 300)]
    text = "\n".join([*blocks, "input 1x8x8", "b299"])
    with pytest.raises(NetError, match="braces and blocks more than 50 deep"):
        parse(text)
