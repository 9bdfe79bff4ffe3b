package content

import (
	"slices"
	"strings"
	"testing"

	"github.com/tollwire/tollwire/decoder/exchange"
	"github.com/tollwire/tollwire/llm"
)

func TestQuality(t *testing.T) {
	for _, c := range []struct {
		name string
		run  func(m *Meter, c *llm.Call)
		json bool
		want []string
	}{
		{"valid JSON in pieces", func(m *Meter, c *llm.Call) { m.Text(0, []byte(`{"a":`)); m.Text(0, []byte(`1}`)) }, true, nil},
		{"JSON in a fence", func(m *Meter, c *llm.Call) { m.Text(0, []byte("```json\n{}\n```")) }, true, []string{SchemaInvalid}},
		{"text where text may be", func(m *Meter, c *llm.Call) { m.Text(0, []byte("hello")) }, false, nil},
		{"broken off at the limit", func(m *Meter, c *llm.Call) {
			m.Text(0, []byte(`{"a":`))
			c.FinishReasons = []string{"length"}
		}, true, []string{Length}},
		{"arguments", func(m *Meter, c *llm.Call) {
			m.Tool("f")
			m.Arguments(0, []byte(`{"a":`))
			m.Arguments(0, []byte(`}`))
		}, false, []string{ArgumentsInvalid}},
		{"tool call where JSON was asked for", func(m *Meter, c *llm.Call) {
			m.Tool("f")
			m.Arguments(0, []byte(`{}`))
			m.Text(0, []byte("let me see"))
		}, true, nil},
		{"empty", func(m *Meter, c *llm.Call) {}, false, []string{Empty}},
		{"filtered", func(m *Meter, c *llm.Call) { c.FinishReasons = []string{"content_filter"} }, true, []string{Filtered}},
		{"refused", func(m *Meter, c *llm.Call) { m.Text(0, []byte("no")); m.Signal(Refusal) }, true, []string{Refusal}},
	} {
		call := &llm.Call{Operation: "chat", Status: 200, FinishReasons: []string{"stop"}}
		var m Meter
		m.Open(Config{}, &exchange.Facts{JSONSchema: c.json}, call)
		c.run(&m, call)
		m.End(true)
		if !slices.Equal(call.Quality, c.want) {
			t.Errorf("%s: %v, want %v", c.name, call.Quality, c.want)
		}
		call = &llm.Call{Operation: "chat", FinishReasons: []string{"stop"}}
		m.Open(Config{NoQuality: true}, &exchange.Facts{JSONSchema: c.json}, call)
		c.run(&m, call)
		if m.End(true); call.Quality != nil {
			t.Errorf("%s: %v although it is off", c.name, call.Quality)
		}
	}
}

func TestEstimate(t *testing.T) {
	f := exchange.Facts{Text: exchange.Sample{Bytes: 13, Kept: []byte("Hello, world!")}}
	call := &llm.Call{Operation: "chat", Status: 200, ResponseModel: "gpt-4o"}
	var m Meter
	m.Open(Config{}, &f, call)
	m.Reasoning([]byte("thinking "))
	m.Text(0, []byte(strings.Repeat("word ", 1000)))
	m.End(true)
	if in, out := call.Usage.Get(llm.Input), call.Usage.Get(llm.Output)+call.Usage.Get(llm.Reasoning); in != 4+messageOverhead || out < 980 || out > 1020 ||
		call.Completeness != llm.Estimated || call.UsageSource != llm.SourceTokenizer {
		t.Fatalf("%v in, %v out, %v %v", in, out, call.Completeness, call.UsageSource)
	}
	stated := &llm.Call{Operation: "chat", Status: 200}
	stated.Usage.Set(llm.Input, 7)
	m.Open(Config{}, &f, stated)
	m.Text(0, []byte("x"))
	if m.End(true); stated.Usage.Has(llm.Output) {
		t.Fatal("what was stated was estimated over")
	}
	failed := &llm.Call{Operation: "chat", Status: 500}
	m.Open(Config{}, &f, failed)
	if m.End(true); !failed.Usage.Empty() {
		t.Fatal("an error was given usage")
	}
	off := &llm.Call{Operation: "chat", Status: 200}
	m.Open(Config{NoEstimate: true}, &f, off)
	m.Text(0, []byte("x"))
	if m.End(true); !off.Usage.Empty() {
		t.Fatal("estimated although it is off")
	}
}
