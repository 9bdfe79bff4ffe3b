package api_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/tollwire/tollwire/decoder"
	"github.com/tollwire/tollwire/decoder/api"
	"github.com/tollwire/tollwire/decoder/content"
	"github.com/tollwire/tollwire/decoder/vendors"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// rules are those of a price book with one API.
func rules(host, path, method string) string {
	if host == "maps.example.com" && path != "/logo.png" {
		return "geocoder"
	}
	return ""
}

// decode sends exchanges over one connection and returns the calls and the verdicts.
func decode(exchanges ...[2]string) (calls []*llm.Call, verdicts []string) {
	d := decoder.New(decoder.Config{
		Vendors: append(vendors.All(content.Config{}), api.New(rules)),
		Call:    func(c *llm.Call) { calls = append(calls, c) },
		Verdict: func(_ flow.Conn, n uint32, v flow.Verdict) {
			verdicts = append(verdicts, fmt.Sprintf("%d:%d", n, v))
		},
	})
	conn := flow.Conn{Proc: flow.Proc{PID: 7, Start: 1}, Key: 1, Gen: 1}
	var pos [2]uint64
	now := flow.Time(time.Second)
	for i, x := range exchanges {
		for dir, s := range x {
			now += flow.Time(time.Millisecond)
			d.Push(&flow.Data{
				Kind: flow.KindData, Conn: conn, Dir: flow.Dir(dir), Source: flow.SourceOpenSSL, Time: now,
				Pos: pos[dir], Exchange: uint32(i + 1), Head: true, Payload: []byte(s),
			})
			pos[dir] += uint64(len(s))
		}
	}
	d.Close()
	return calls, verdicts
}

const (
	ok   = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 17\r\n\r\n{\"lat\":1,\"lng\":2}"
	full = "HTTP/1.1 429 Too Many Requests\r\nContent-Length: 0\r\n\r\n"
)

func TestCalls(t *testing.T) {
	calls, verdicts := decode(
		[2]string{"GET /geocode?q=home HTTP/1.1\r\nHost: Maps.Example.com:8443\r\n\r\n", ok},
		[2]string{"GET /logo.png HTTP/1.1\r\nHost: maps.example.com\r\n\r\n", ok},
		[2]string{"POST /batch HTTP/1.1\r\nHost: maps.example.com\r\nContent-Length: 2\r\n\r\n{}", full},
		// A call to a model stays one, whatever the rules say of its host.
		[2]string{"POST /v1/chat/completions HTTP/1.1\r\nHost: maps.example.com\r\nContent-Type: application/json\r\nContent-Length: 44\r\n\r\n" +
			`{"model":"gpt-4o","messages":[],"stream":no}`, ok},
		[2]string{"GET /geocode HTTP/1.1\r\nHost: maps.example.com\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"},
	)
	if want := []string{"2:1"}; fmt.Sprint(verdicts) != fmt.Sprint(want) {
		t.Errorf("verdicts %v, want %v", verdicts, want)
	}
	if len(calls) != 4 {
		t.Fatalf("%d calls, want 4", len(calls))
	}
	for i, want := range []struct {
		api, path, errorType string
		status               int
		answered             int64
		partial              llm.Partial
	}{
		{"geocoder", "/geocode", "", 200, 17, ""},
		{"geocoder", "/batch", "429", 429, 0, ""},
		{"", "/v1/chat/completions", "", 200, 17, ""},
		{"geocoder", "/geocode", "cut", 200, 4, llm.PartialCut},
	} {
		c := calls[i]
		if c.API != want.api || c.Path != want.path || c.ErrorType != want.errorType || c.Status != want.status ||
			c.ResponseBytes != want.answered || c.Partial != want.partial {
			t.Errorf("call %d: %+v, want %+v", i, c, want)
		}
		if want.api == "" {
			continue
		}
		if c.Vendor != "api" || c.Provider != "" || c.Operation != "" || c.ServerAddress != "maps.example.com" ||
			c.Usage.Get(llm.Requests) != 1 || c.Completeness != llm.Exact || c.UsageSource != "" || c.Role != llm.RoleClient {
			t.Errorf("call %d: %+v", i, c)
		}
	}
}

func TestNoAnswer(t *testing.T) {
	calls, _ := decode([2]string{"GET /geocode HTTP/1.1\r\nHost: maps.example.com\r\n\r\n", ""})
	if len(calls) != 1 || calls[0].API != "geocoder" || calls[0].Status != 0 || calls[0].ErrorType != "cut" {
		t.Fatalf("%+v", calls)
	}
}
