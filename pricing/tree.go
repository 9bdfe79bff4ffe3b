package pricing

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// node is a piece of a book with its place in the file: a mapping, a list or a
// scalar's text as it was written.
type node struct {
	kind      nodeKind
	text      string
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

// parseTree reads YAML (and so JSON) without anchors, aliases, tags and merge keys.
func parseTree(file string, data []byte) (*node, error) {
	if len(data) > maxBookBytes {
		return nil, &Error{File: file, Reason: fmt.Sprintf("larger than %d bytes", maxBookBytes)}
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, &Error{File: file, Reason: "empty"}
	} else if err != nil {
		return nil, syntaxError(file, err)
	}
	var rest yaml.Node
	if err := dec.Decode(&rest); err == nil {
		return nil, &Error{File: file, Line: rest.Line, Col: rest.Column, Reason: "more than one YAML document"}
	} else if !errors.Is(err, io.EOF) {
		return nil, syntaxError(file, err)
	}
	t := treeReader{file: file}
	root := t.node(doc.Content[0], 0)
	return root, t.err
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

func syntaxError(file string, err error) error {
	e := &Error{File: file, Reason: err.Error()}
	if m := yamlLine.FindStringSubmatch(e.Reason); m != nil {
		e.Reason = "no valid YAML: " + e.Reason[len(m[0]):]
		e.Line, _ = strconv.Atoi(m[1])
		e.Col = 1
	}
	return e
}

type treeReader struct {
	file string
	err  error
}

func (t *treeReader) node(n *yaml.Node, depth int) *node {
	out := &node{line: n.Line, col: n.Column}
	switch {
	case t.err != nil:
		return out
	case depth > maxDepth:
		t.err = &Error{File: t.file, Line: n.Line, Col: n.Column, Reason: "nested too deep"}
		return out
	case n.Kind == yaml.AliasNode, n.Anchor != "", n.Tag == "!!merge", n.Style&yaml.TaggedStyle != 0:
		t.err = &Error{File: t.file, Line: n.Line, Col: n.Column, Reason: "anchors, aliases, merge keys and tags have no meaning in a price book"}
		return out
	}
	switch n.Kind {
	case yaml.MappingNode:
		out.kind = mapNode
		out.keys = make([]*node, 0, len(n.Content)/2)
		out.items = make([]*node, 0, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := t.node(n.Content[i], depth+1)
			if key.kind != scalarNode && t.err == nil {
				t.err = &Error{File: t.file, Line: key.line, Col: key.col, Reason: "a key must be a text"}
			}
			out.keys = append(out.keys, key)
			out.items = append(out.items, t.node(n.Content[i+1], depth+1))
		}
	case yaml.SequenceNode:
		out.kind = listNode
		out.items = make([]*node, 0, len(n.Content))
		for _, c := range n.Content {
			out.items = append(out.items, t.node(c, depth+1))
		}
	case yaml.ScalarNode:
		out.text = n.Value
		if n.Tag == "!!null" {
			out.kind = nullNode
		}
	}
	return out
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

// endpoints returns hosts, in lower case, with the path that may follow as it stands.
func (r *reader) endpoints(n *node) (out []string) {
	one := func(n *node) {
		host, path, found := strings.Cut(r.text(n), "/")
		if host = strings.ToLower(host); found {
			host += "/" + path
		}
		out = append(out, host)
	}
	if n.kind == listNode {
		r.list(n, one)
	} else {
		one(n)
	}
	return out
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
