"""CEL expressions over products: checked by Google's own compiler, evaluated for all products at once.

The compiler parses and type-checks; its checked tree is walked with numpy over the catalogue's columns. What reads the
product alone is evaluated once; what reads the user or the context, once for all lists that are made together, over the
candidates of all of them: users' values are (users, 1), products' (users, candidates).
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from cel_expr_python import cel

ITEM = "item."

VARIABLES = {
    "item.id": "string",
    "item.category": "string",
    "item.brand": "string",
    "item.price": "double",
    "item.stock": "int",
    "item.tags": "list(string)",
    "item.numbers": "map(string, double)",
    "user.id": "string",
    "user.events": "int",
    "user.share": "double",
    "shown.ago": "int",
    "shown.times": "int",
    "context.surface": "string",
    "context.locale": "string",
    "context.adult": "bool",
    "context.consent": "bool",
}
"""The words of an expression, and their types."""

OF_VISIT = frozenset({"context.locale", "context.adult", "context.consent"})
"""What is known when somebody looks at a page, and not when a worker makes a list for him beforehand."""


OF_SHOWN = frozenset({"shown.ago", "shown.times"})
"""What was shown to the user of the product lately."""


class Value(NamedTuple):
    """An expression's value: one for all, or an array that numpy broadcasts to all."""

    value: Any
    error: Any = False
    """Where CEL has no value (a name that `numbers` does not have): bool, or an array of them."""

    def at(self, rows: NDArray[np.int64]) -> "Value":
        """Of some products, the shape of `rows`; what is the same for all stays one."""
        return Value(
            self.value[rows] if isinstance(self.value, np.ndarray) else self.value,
            self.error[rows] if isinstance(self.error, np.ndarray) else self.error,
        )


class ExpressionError(ValueError):
    """An expression that cannot be used."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


@dataclass(frozen=True)
class Program:
    """A checked expression."""

    source: str
    root: "Node"
    parts: tuple["Node", ...]
    """The largest subtrees that read the product and nothing else."""
    reads: frozenset[str]
    """Variables that it reads."""

    @property
    def static(self) -> bool:
        """Whether it depends on the product alone."""
        return all(name.startswith(ITEM) for name in self.reads)

    def of_products(self, columns: Mapping[str, NDArray[Any]]) -> list[Value]:
        """The value of each part for products given as columns."""
        return [part.evaluate(columns) for part in self.parts]

    def result(self, parts: Sequence[Value], rows: NDArray[np.int64], values: Mapping[str, object]) -> Value:
        """The value of the whole for products at `rows` of the parts' values, with those of user and context."""
        known = dict(zip(map(id, self.parts), parts, strict=True))
        return self.root.evaluate(values, known, rows)


@dataclass(frozen=True, eq=False)
class Node:
    """A node of the checked tree."""

    operation: Callable[..., Value] | None
    arguments: tuple["Node", ...] = ()
    name: str = ""
    """The variable, where it is one."""
    constant: Value | None = None

    def evaluate(
        self,
        values: Mapping[str, Any],
        known: Mapping[int, Value] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> Value:
        """The node's value, by the values of variables; `known` are those of nodes that are known of all products."""
        if known is not None and rows is not None and (found := known.get(id(self))) is not None:
            return found.at(rows)
        if self.constant is not None:
            return self.constant
        if self.operation is None:
            return Value(values[self.name])
        first, *others = self.arguments
        value = first.evaluate(values, known, rows)
        if self.operation is _and and value.value is False and value.error is False:
            return value  # a rule for some users costs the others next to nothing
        return self.operation(value, *(argument.evaluate(values, known, rows) for argument in others))

    def reads(self) -> frozenset[str]:
        """Variables below it."""
        below = frozenset[str]().union(*(argument.reads() for argument in self.arguments))
        return below | {self.name} if self.name else below


def compile_expression(source: str, kind: Literal["bool", "double"]) -> Program:
    """Check an expression and make it ready.

    Args:
        source: CEL.
        kind: what it must give.

    Raises:
        ExpressionError: it is no CEL, its types do not fit, it gives something else, or it needs what cannot be
            evaluated for all products at once.
    """
    try:
        expression = _environment().compile(source)
    except RuntimeError as error:
        raise _fault(str(error)) from None
    if expression.return_type().name().lower() != kind:
        raise ExpressionError(f"it gives {expression.return_type().name()}, not {kind.upper()}", 1, 1)
    envelope, checked = _messages()["Any"](), _messages()["Checked"]()
    envelope.ParseFromString(expression.serialize())
    checked.ParseFromString(envelope.value)
    root = _Reader(source, checked).node(checked.expr)
    return Program(source, root, tuple(_parts(root)), root.reads())


def oracle(source: str, values: Mapping[str, object]) -> tuple[object, bool]:
    """What the compiler's own evaluator gives for one product, and whether that is an error; for `Value` to match."""
    from cel_expr_python import cel

    found = _environment().compile(source).eval(data=values)
    return found.value(), found.type() == cel.Type.ERROR


def _parts(node: Node) -> list[Node]:
    reads = node.reads()
    if reads and all(name.startswith(ITEM) for name in reads):
        return [node]
    return [part for argument in node.arguments for part in _parts(argument)]


@cache
def _environment() -> "cel.Env":
    # Read when the first expression is: it takes 0.1 s, and most workers start without rules.
    from cel_expr_python import cel

    text = cel.Type.STRING
    kinds = {"string": text, "int": cel.Type.INT, "double": cel.Type.DOUBLE, "bool": cel.Type.BOOL}
    kinds |= {"list(string)": cel.Type.List(text), "map(string, double)": cel.Type.Map(text, cel.Type.DOUBLE)}
    return cel.NewEnv(variables={name: kinds[kind] for name, kind in VARIABLES.items()})


_PLACE = re.compile(r"ERROR: <input>:(\d+):(\d+): (.*?)\n", re.DOTALL)


def _fault(text: str) -> ExpressionError:
    found = _PLACE.search(text)
    if found is None:
        return ExpressionError(text.splitlines()[0], 1, 1)
    message = found[3]
    if "(double, int)" in message or "(int, double)" in message:
        message += "; numbers beside a double have a point: 20.0"
    return ExpressionError(message, int(found[1]), int(found[2]))


class _Reader:
    """Turns a checked tree into nodes."""

    def __init__(self, source: str, checked: Any) -> None:
        self._source = source
        self._checked = checked

    def node(self, expression: Any) -> Node:
        kind = expression.WhichOneof("kind")
        reference = self._checked.references.get(expression.id)
        if kind in ("ident", "select") and reference is not None and reference.name in VARIABLES:
            return Node(None, name=reference.name)
        match kind:
            case "constant":
                value = getattr(expression.constant, expression.constant.WhichOneof("kind"))
                return Node(None, constant=Value(value))
            case "select" if expression.select.test_only:
                return Node(_has, (self.node(expression.select.operand), _constant(expression.select.field)))
            case "select":
                return Node(_index, (self.node(expression.select.operand), _constant(expression.select.field)))
            case "list":
                elements = [self.node(element) for element in expression.list.elements]
                if all(element.constant is not None for element in elements):
                    return _constant(tuple(element.constant.value for element in elements if element.constant))
                raise self._unsupported(expression, "a list of other than constants")
            case "call":
                return self._call(expression)
        raise self._unsupported(expression, "this form")

    def _call(self, expression: Any) -> Node:
        call = expression.call
        given = ([call.target] if call.HasField("target") else []) + list(call.args)
        arguments = tuple(self.node(argument) for argument in given)
        operation = _OPERATIONS.get(call.function)
        if operation is None:
            raise self._unsupported(expression, call.function.strip("_@"))
        if call.function in _DOUBLES and not all(self._type(argument) == _DOUBLE for argument in given):
            raise self._unsupported(expression, "arithmetic of other than doubles (try `double(…)`)")
        if call.function == "_[_]" and arguments[0].name != "item.numbers":
            raise self._unsupported(expression, "an index into other than item.numbers")
        if call.function in _COMPARISONS and not all(map(self._type, given)):
            raise self._unsupported(expression, "a comparison of lists or maps")
        return Node(operation, arguments)

    def _type(self, expression: Any) -> int:
        primitive: int = self._checked.types[expression.id].primitive
        return primitive

    def _unsupported(self, expression: Any, what: str) -> ExpressionError:
        offset = self._checked.source.positions.get(expression.id, 0)
        before = self._source[:offset]
        return ExpressionError(
            f"{what} cannot be evaluated for all products at once", before.count("\n") + 1, offset - before.rfind("\n")
        )


def _constant(value: object) -> Node:
    return Node(None, constant=Value(value))


def _and(left: Value, right: Value) -> Value:
    """False where either is, whatever the other: CEL's `&&` is commutative about errors."""
    if left.error is False and right.error is False:
        if left.value is False or right.value is False:
            return Value(False)
        return Value(np.logical_and(left.value, right.value) if _arrays(left, right) else left.value and right.value)
    no = (np.logical_not(left.value) & np.logical_not(left.error)) | (
        np.logical_not(right.value) & np.logical_not(right.error)
    )
    error = np.logical_or(left.error, right.error) & ~no
    return Value(np.logical_and(left.value, right.value) & ~no, error)


def _or(left: Value, right: Value) -> Value:
    return _not(_and(_not(left), _not(right)))


def _not(one: Value) -> Value:
    return Value(~one.value if isinstance(one.value, np.ndarray) else not one.value, one.error)


def _arrays(*values: Value) -> bool:
    return any(isinstance(value.value, np.ndarray) for value in values)


def _either(left: Value, right: Value) -> Any:
    if left.error is False and right.error is False:
        return False
    return np.logical_or(left.error, right.error)


def _lifted(function: Callable[[Any, Any], Any]) -> Callable[[Value, Value], Value]:
    """An operation of two values that numpy has for arrays, object arrays among them."""

    def apply(left: Value, right: Value) -> Value:
        with np.errstate(all="ignore"):
            found = function(left.value, right.value)
        if isinstance(found, np.ndarray) and found.dtype == object:
            found = found.astype(bool)
        return Value(found, _either(left, right))

    return apply


def _each(function: Callable[[Any, Any], Any], kind: type) -> Callable[[Value, Value], Value]:
    """An operation of two values that numpy does not have, value by value."""

    def apply(left: Value, right: Value) -> Value:
        return Value(_one_by_one(function, kind, left.value, right.value), _either(left, right))

    return apply


def _one_by_one(function: Callable[[Any, Any], Any], kind: type, left: Any, right: Any) -> Any:
    match isinstance(left, np.ndarray), isinstance(right, np.ndarray):
        case False, False:
            return function(left, right)
        case True, False:
            return np.fromiter((function(one, right) for one in left.flat), kind, left.size).reshape(left.shape)
        case False, True:
            return np.fromiter((function(left, one) for one in right.flat), kind, right.size).reshape(right.shape)
    left, right = np.broadcast_arrays(left, right)
    return np.fromiter(map(function, left.flat, right.flat), kind, left.size).reshape(left.shape)


def _divide(left: Any, right: Any) -> Any:
    with np.errstate(all="ignore"):
        found = np.divide(left, right)
    return found if isinstance(found, np.ndarray) else float(found)


def _size(one: Value) -> Value:
    if isinstance(one.value, np.ndarray):
        return Value(
            np.fromiter(map(len, one.value.flat), np.int64, one.value.size).reshape(one.value.shape), one.error
        )
    return Value(len(one.value), one.error)


def _double(one: Value) -> Value:
    return Value(one.value.astype(np.float64) if isinstance(one.value, np.ndarray) else float(one.value), one.error)


def _choose(condition: Value, yes: Value, no: Value) -> Value:
    if not isinstance(condition.value, np.ndarray) and condition.error is False:
        return yes if condition.value else no
    value = np.where(condition.value, yes.value, no.value)
    return Value(value, np.where(condition.value, yes.error, no.error) | condition.error)


def _index(numbers: Value, name: Value) -> Value:
    missing = _one_by_one(lambda one, key: key not in one, bool, numbers.value, name.value)
    return Value(_one_by_one(lambda one, key: one.get(key, 0.0), float, numbers.value, name.value), missing)


_has = _each(lambda numbers, name: name in numbers, bool)

_DOUBLE = 4
"""The number of `double` among CEL's primitive types."""

_DOUBLES = {"_+_", "_-_", "_*_", "_/_", "-_"}

_COMPARISONS = {"_==_", "_!=_", "_<_", "_<=_", "_>_", "_>=_"}

_OPERATIONS: dict[str, Callable[..., Value]] = {
    "_&&_": _and,
    "_||_": _or,
    "!_": _not,
    "_?_:_": _choose,
    "_==_": _lifted(operator.eq),
    "_!=_": _lifted(operator.ne),
    "_<_": _lifted(operator.lt),
    "_<=_": _lifted(operator.le),
    "_>_": _lifted(operator.gt),
    "_>=_": _lifted(operator.ge),
    "_+_": _lifted(operator.add),
    "_-_": _lifted(operator.sub),
    "_*_": _lifted(operator.mul),
    "_/_": _lifted(_divide),
    "-_": lambda one: Value(-one.value, one.error),
    "@in": _each(lambda one, many: one in many, bool),
    "startsWith": _each(str.startswith, bool),
    "endsWith": _each(str.endswith, bool),
    "contains": _each(lambda text, part: part in text, bool),
    "size": _size,
    "double": _double,
    "_[_]": _index,
}


@cache
def _messages() -> dict[str, Any]:
    """Readers of the checked tree, which the compiler gives as `cel.expr.CheckedExpr` (cel-spec, checked.proto)."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    whole, text, number, truth, message = (
        field.TYPE_INT64,
        field.TYPE_STRING,
        field.TYPE_DOUBLE,
        field.TYPE_BOOL,
        field.TYPE_MESSAGE,
    )
    layout: dict[str, list[tuple[str, int, int, str, bool]]] = {
        "Any": [("value", 2, field.TYPE_BYTES, "", False)],
        "Constant": [
            ("truth", 2, truth, "", False),
            ("whole", 3, whole, "", False),
            ("number", 5, number, "", False),
            ("text", 6, text, "", False),
        ],
        "Ident": [("name", 1, text, "", False)],
        "Select": [
            ("operand", 1, message, "Expr", False),
            ("field", 2, text, "", False),
            ("test_only", 3, truth, "", False),
        ],
        "Call": [
            ("target", 1, message, "Expr", False),
            ("function", 2, text, "", False),
            ("args", 3, message, "Expr", True),
        ],
        "List": [("elements", 1, message, "Expr", True)],
        "Expr": [
            ("id", 2, whole, "", False),
            ("constant", 3, message, "Constant", False),
            ("ident", 4, message, "Ident", False),
            ("select", 5, message, "Select", False),
            ("call", 6, message, "Call", False),
            ("list", 7, message, "List", False),
        ],
        "Reference": [("name", 1, text, "", False)],
        "Type": [("primitive", 3, whole, "", False)],
        "Source": [("positions", 4, whole, "", True)],
        "Checked": [
            ("references", 2, message, "Reference", True),
            ("types", 3, message, "Type", True),
            ("expr", 4, message, "Expr", False),
            ("source", 5, message, "Source", False),
        ],
    }
    maps = {("Checked", "references"), ("Checked", "types"), ("Source", "positions")}
    file = descriptor_pb2.FileDescriptorProto(name="checked.proto", package="checked", syntax="proto3")
    for name, fields in layout.items():
        described = file.message_type.add(name=name)
        alternatives = name in ("Constant", "Expr")
        if alternatives:
            described.oneof_decl.add(name="kind")
        for field_name, place, kind, of, repeated in fields:
            one = described.field.add(name=field_name, number=place, type=kind)
            one.label = field.LABEL_REPEATED if repeated else field.LABEL_OPTIONAL
            if (name, field_name) in maps:
                entry = described.nested_type.add(name=f"{field_name.capitalize()}Entry")
                entry.options.map_entry = True
                entry.field.add(name="key", number=1, type=whole, label=field.LABEL_OPTIONAL)
                inner = entry.field.add(name="value", number=2, type=kind, label=field.LABEL_OPTIONAL)
                if of:
                    inner.type_name = f".checked.{of}"
                one.type, one.type_name = message, f".checked.{name}.{entry.name}"
            elif of:
                one.type_name = f".checked.{of}"
            if alternatives and field_name != "id":
                one.oneof_index = 0
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"checked.{name}")) for name in layout}
