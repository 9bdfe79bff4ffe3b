// Package recordtest makes records for tests.
package recordtest

import (
	"time"

	"github.com/tollwire/tollwire/account"
	"github.com/tollwire/tollwire/attribution"
	"github.com/tollwire/tollwire/flow"
	"github.com/tollwire/tollwire/llm"
)

// epoch is the wall clock time at flow.Time 0 of every record made here.
var epoch = time.Date(2026, 8, 1, 12, 0, 0, 0, time.UTC)

// Wall returns the wall clock time of t.
func Wall(t flow.Time) time.Time { return epoch.Add(time.Duration(t)) }

// At returns the flow.Time d after the epoch.
func At(d time.Duration) flow.Time { return flow.Time(d) }

// New returns a streamed chat call that ended well, as its client saw it: it began a
// second after the epoch, its first content came after 250 ms, five chunks 20 ms
// apart followed, and it used 1200 (1000 of them cached) and 42 tokens. The options
// change it in order.
func New(options ...func(*account.Record)) *account.Record {
	c := &llm.Call{
		Conn:   flow.Conn{Proc: flow.Proc{PID: 4242, Start: 77}, Key: 0x7f00, Gen: 1},
		Source: flow.SourceOpenSSL, Role: llm.RoleClient,
		Provider: "openai", Operation: "chat", Vendor: "openai",
		RequestModel: "gpt-4o", ResponseModel: "gpt-4o-2024-08-06", ResponseID: "chatcmpl-1",
		FinishReasons: []string{"stop"}, Stream: true,
		Method: "POST", Path: "/v1/chat/completions", ServerAddress: "api.openai.com", ServerPort: 443, Status: 200,
		Completeness: llm.Exact, UsageSource: llm.SourceStream,
		RequestBytes: 5120, ResponseBytes: 2048,
	}
	c.Usage.Set(llm.Input, 200)
	c.Usage.Set(llm.CacheRead, 1000)
	c.Usage.Set(llm.Output, 42)
	t := &c.Times
	t.Start = At(time.Second)
	t.RequestEnd = t.Start + At(time.Millisecond)
	t.FirstByte = t.Start + At(200*time.Millisecond)
	t.FirstChunk = t.Start + At(210*time.Millisecond)
	t.FirstContent = t.Start + At(250*time.Millisecond)
	t.FirstVisible = t.FirstContent
	t.LastContent = t.FirstContent + At(100*time.Millisecond)
	t.End = t.LastContent + At(5*time.Millisecond)
	t.Chunks, t.AnyChunk = 6, 8
	for range 5 {
		t.Gaps.Add(20 * time.Millisecond)
		t.AnyGaps.Add(20 * time.Millisecond)
	}
	r := &account.Record{
		Time: Wall(t.Start), Call: c, Counted: true,
		Owner: attribution.Owner{
			PID: 4242, Executable: "python3.11", ServiceName: "shop", Graph: "checkout", Node: "summarise",
			NodeSource: "rule:shop", Complete: true,
		},
	}
	r.Trace = account.Trace{TraceID: "0af7651916cd43dd8448eb211c80319c", SpanID: "b7ad6b7169203331", Source: "agent"}
	for _, o := range options {
		o(r)
	}
	return r
}

// API makes the call one to a priced HTTP API, which is no model.
func API(name string) func(*account.Record) {
	return func(r *account.Record) {
		was := r.Call
		r.Call = &llm.Call{
			Conn: was.Conn, Source: was.Source, Role: was.Role, Vendor: "api", API: name, Method: "GET", Path: "/" + name,
			ServerAddress: "api." + name + ".example", ServerPort: 443, Status: 200, Completeness: llm.Exact,
			ResponseBytes: 512, Times: llm.Times{Start: was.Times.Start, FirstByte: was.Times.FirstByte, End: was.Times.End},
		}
		r.Call.Usage.Set(llm.Requests, 1)
	}
}

// Move shifts every time of the call by d.
func Move(d time.Duration) func(*account.Record) {
	return func(r *account.Record) {
		t := &r.Call.Times
		for _, p := range []*flow.Time{&t.Start, &t.RequestEnd, &t.FirstByte, &t.FirstChunk, &t.FirstContent, &t.FirstVisible, &t.LastContent, &t.End} {
			*p += At(d)
		}
		r.Time = Wall(t.Start)
	}
}

// Last sets the call's end d after its start.
func Last(d time.Duration) func(*account.Record) {
	return func(r *account.Record) { r.Call.Times.End = r.Call.Times.Start + At(d) }
}

// Server makes it the record of a server with that pid.
func Server(pid uint32) func(*account.Record) {
	return func(r *account.Record) {
		Process(pid)(r)
		r.Call.Role = llm.RoleServer
		r.Owner = attribution.Owner{PID: pid, Executable: "server", Complete: true}
	}
}

// Process gives it to the process with that pid, on a connection of its own.
func Process(pid uint32) func(*account.Record) {
	return func(r *account.Record) {
		r.Call.Conn.Proc = flow.Proc{PID: pid, Start: uint64(pid)}
		r.Call.Conn.Key = uint64(pid) << 16
		r.Owner.PID = pid
	}
}

// ID sets the response's id.
func ID(id string) func(*account.Record) { return func(r *account.Record) { r.Call.ResponseID = id } }
