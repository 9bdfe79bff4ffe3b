package pricing

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
)

// node is a piece of a book with its place in the file: a mapping, a list or a
// scalar's text as it was written.
type node struct {
	kind      nodeKind
	text      string
	quoted    bool
	keys      []*node // of a mapping; values stand in items
	items     []*node
	line, col int
}

type nodeKind uint8

const (
	scalarNode nodeKind = iota
	mapNode
	listNode
	nullNode
)

func (k nodeKind) String() string {
	return [...]string{"a single value", "a mapping", "a list", "nothing"}[k]
}

// Bounds of what a book may hold; a file beyond them is refused.
const (
	maxBookBytes = 8 << 20
	maxDepth     = 16
)

// Error is one fault of a book, with its place.
type Error struct {
	File      string
	Line, Col int
	Reason    string
}

func (e *Error) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %s", e.File, e.Reason)
	}
	return fmt.Sprintf("%s:%d:%d: %s", e.File, e.Line, e.Col, e.Reason)
}

// parseTree reads YAML (and so JSON) without anchors, tags and merge keys.
func parseTree(file string, data []byte) (root *node, err error) {
	if len(data) > maxBookBytes {
		return nil, &Error{File: file, Reason: fmt.Sprintf("larger than %d bytes", maxBookBytes)}
	}
	if err := checkNesting(data); err != nil {
		err.File = file
		return nil, err
	}
	defer func() { // the library's parser is not ours to trust with hostile input
		if r := recover(); r != nil {
			root, err = nil, &Error{File: file, Reason: fmt.Sprintf("no valid YAML: %v", r)}
		}
	}()
	f, err := parser.ParseBytes(data, 0)
	if err != nil {
		e := &Error{File: file, Reason: err.Error()}
		if syntax := (*yaml.SyntaxError)(nil); errors.As(err, &syntax) {
			e.Reason = syntax.Message
			if t := syntax.Token; t != nil && t.Position != nil {
				e.Line, e.Col = t.Position.Line, t.Position.Column
			}
		}
		return nil, e
	}
	var docs []ast.Node
	for _, d := range f.Docs {
		if d.Body != nil {
			docs = append(docs, d.Body)
		}
	}
	switch len(docs) {
	case 0:
		return nil, &Error{File: file, Reason: "empty"}
	case 1:
		t := treeReader{file: file}
		root = t.node(docs[0], 0)
		if t.err != nil {
			return nil, t.err
		}
		return root, nil
	}
	return nil, &Error{File: file, Reason: "more than one YAML document"}
}

// checkNesting refuses brackets nested deeper than a book's, before a recursive
// parser sees them. Brackets inside quotes count too: no name holds that many.
func checkNesting(data []byte) *Error {
	depth, line := 0, 1
	for _, c := range data {
		switch c {
		case '\n':
			line++
		case '[', '{':
			if depth++; depth > 4*maxDepth {
				return &Error{Line: line, Col: 1, Reason: "nested too deep"}
			}
		case ']', '}':
			depth = max(0, depth-1)
		}
	}
	return nil
}

type treeReader struct {
	file string
	err  error
}

func (t *treeReader) fail(n ast.Node, reason string) *node {
	if t.err == nil {
		e := &Error{File: t.file, Reason: reason}
		if tok := n.GetToken(); tok != nil && tok.Position != nil {
			e.Line, e.Col = tok.Position.Line, tok.Position.Column
		}
		t.err = e
	}
	return &node{kind: nullNode}
}

func (t *treeReader) node(n ast.Node, depth int) *node {
	if t.err != nil {
		return &node{kind: nullNode}
	}
	if depth > maxDepth {
		return t.fail(n, "nested too deep")
	}
	out := &node{}
	if tok := n.GetToken(); tok != nil && tok.Position != nil {
		out.line, out.col = tok.Position.Line, tok.Position.Column
	}
	switch n := n.(type) {
	case *ast.MappingNode:
		out.kind = mapNode
		for _, v := range n.Values {
			t.pair(out, v, depth)
		}
		if len(out.keys) > 0 {
			out.line, out.col = out.keys[0].line, out.keys[0].col
		}
	case *ast.MappingValueNode:
		out.kind = mapNode
		t.pair(out, n, depth)
		out.line, out.col = out.keys[0].line, out.keys[0].col
	case *ast.SequenceNode:
		out.kind = listNode
		for _, v := range n.Values {
			out.items = append(out.items, t.node(v, depth+1))
		}
	case *ast.NullNode:
		out.kind = nullNode
	case *ast.StringNode:
		out.text, out.quoted = n.Value, true
	case *ast.LiteralNode:
		out.text, out.quoted = n.Value.Value, true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode:
		out.text = n.GetToken().Value
	default:
		return t.fail(n, fmt.Sprintf("%s has no meaning in a price book", strings.ToLower(n.Type().String())))
	}
	return out
}

func (t *treeReader) pair(out *node, v *ast.MappingValueNode, depth int) {
	key := &node{text: v.Key.GetToken().Value}
	if p := v.Key.GetToken().Position; p != nil {
		key.line, key.col = p.Line, p.Column
	}
	if v.Key.IsMergeKey() {
		t.fail(v, "merge keys have no meaning in a price book")
	}
	out.keys = append(out.keys, key)
	out.items = append(out.items, t.node(v.Value, depth+1))
}

// reader turns nodes into values and gathers what is wrong with them.
type reader struct {
	file   string
	errs   []error
	excess int
}

// maxErrors bounds the report of one file.
const maxErrors = 20

func (r *reader) fail(n *node, format string, args ...any) {
	if len(r.errs) >= maxErrors {
		r.excess++
		return
	}
	r.errs = append(r.errs, &Error{File: r.file, Line: n.line, Col: n.col, Reason: fmt.Sprintf(format, args...)})
}

func (r *reader) err() error {
	if r.excess > 0 {
		return errors.Join(append(r.errs, fmt.Errorf("%s: and %d more", r.file, r.excess))...)
	}
	return errors.Join(r.errs...)
}

// object calls the function of every key; keys that have none are refused.
func (r *reader) object(n *node, keys map[string]func(*node)) {
	r.pairs(n, func(key, value *node) {
		f, ok := keys[key.text]
		if !ok {
			known := make([]string, 0, len(keys))
			for k := range keys {
				known = append(known, k)
			}
			slices.Sort(known)
			r.fail(key, "unknown key %q: known here are %s", clip(key.text), strings.Join(known, ", "))
			return
		}
		f(value)
	})
}

// pairs calls f with every key of a mapping, each of which may stand once.
func (r *reader) pairs(n *node, f func(key, value *node)) {
	if n.kind != mapNode {
		r.fail(n, "want a mapping, found %v", n.kind)
		return
	}
	seen := make(map[string]bool, len(n.keys))
	for i, k := range n.keys {
		if seen[k.text] {
			r.fail(k, "key %q stands twice", clip(k.text))
			continue
		}
		seen[k.text] = true
		f(k, n.items[i])
	}
}

func (r *reader) list(n *node, f func(*node)) {
	if n.kind != listNode {
		r.fail(n, "want a list, found %v", n.kind)
		return
	}
	for _, item := range n.items {
		f(item)
	}
}

// text returns a scalar that is not empty.
func (r *reader) text(n *node) string {
	if n.kind != scalarNode || n.text == "" {
		r.fail(n, "want a text, found %v", n.kind)
		return ""
	}
	return n.text
}

// texts returns one text, or a list of them, in lower case.
func (r *reader) texts(n *node) (out []string) {
	if n.kind == listNode {
		r.list(n, func(n *node) { out = append(out, strings.ToLower(r.text(n))) })
		return out
	}
	return []string{strings.ToLower(r.text(n))}
}

func (r *reader) flag(n *node) bool {
	if n.kind != scalarNode || n.text != "true" && n.text != "false" {
		r.fail(n, "want true or false")
	}
	return n.text == "true"
}

// number returns a decimal scaled by 10^scale; negative ones are refused.
func (r *reader) number(n *node, scale int) Money {
	if n.kind != scalarNode {
		r.fail(n, "want a number, found %v", n.kind)
		return Money{}
	}
	m, err := parseDecimal(n.text, scale)
	switch {
	case errors.Is(err, errFineMoney):
		r.fail(n, "%s has more than %d decimals", clip(n.text), scale)
	case err != nil:
		r.fail(n, "%v", err)
	case m.Sign() < 0:
		r.fail(n, "%s is negative", clip(n.text))
	}
	return m
}

// count returns a whole number that fits.
func (r *reader) count(n *node) uint64 {
	m := r.number(n, 0)
	if m.hi != 0 || m.lo > 1<<53 {
		r.fail(n, "%s is too large", clip(n.text))
		return 0
	}
	return m.lo
}

// factor returns a multiplier in 1e-9; 0 is no multiplier but an error.
func (r *reader) factor(n *node) uint64 {
	m := r.number(n, 9)
	if m.hi != 0 || m.lo == 0 || m.lo > 1e18 {
		r.fail(n, "want a factor above 0, found %s", clip(n.text))
		return factorOne
	}
	return m.lo
}
