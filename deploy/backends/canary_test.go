package backends_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tollwire/tollwire/internal/clients"
	"github.com/tollwire/tollwire/internal/trial"
)

// canary is part of every text that must not be seen: prompts, keys, ids of people,
// what tools are told. Their names are in the records.
const canary, tool = "c4n4ry", "look_up"

// plan is how llmsim answers; the seed makes every answer's text the same.
const plan = "tokens=40;seed=77;cached=64;first=10ms;rate=2000"

// graph books this run's calls, for the agent sees those of every program on the machine.
var graph = fmt.Sprintf("backends-%d-%x", os.Getpid(), time.Now().UnixNano())

// call is a call that holds the canary wherever a program may put something private.
func call(provider string, stream bool, plan string) clients.Call {
	said := []any{
		map[string]string{"role": "user", "content": canary + "-question: " + strings.Repeat("why is the sky blue? ", 20)},
		map[string]string{"role": "assistant", "content": canary + "-earlier-answer"},
		map[string]string{"role": "user", "content": canary + "-again"},
	}
	schema := map[string]any{"type": "object", "properties": map[string]any{canary: map[string]string{"type": "string"}}}
	body := map[string]any{"messages": said, "stream": stream}
	c := clients.Call{Provider: provider, Stream: stream, Sim: plan, Headers: map[string]string{
		"Cookie": "session=" + canary + "-cookie", "X-Session-Id": canary + "-session", "X-Custom": canary + "-header",
		"X-Tollwire-Graph": graph, "X-Tollwire-Node": provider,
	}}
	if provider == "anthropic" {
		body["model"], body["max_tokens"] = "claude-sonnet-4-5", 4096
		body["system"] = canary + "-system"
		body["metadata"] = map[string]string{"user_id": canary + "-user"}
		body["tools"] = []any{map[string]any{"name": tool, "description": canary, "input_schema": schema}}
		c.Headers["X-Api-Key"] = "sk-ant-" + canary + "-key"
	} else {
		body["model"], body["user"] = "gpt-4o-mini", canary+"-user"
		body["metadata"] = map[string]string{"session_id": canary + "-session", "note": canary + "-note"}
		body["tools"] = []any{map[string]any{"type": "function", "function": map[string]any{"name": tool, "description": canary, "parameters": schema}}}
		if stream {
			body["stream_options"] = map[string]bool{"include_usage": true}
		}
		c.Headers["Authorization"] = "Bearer sk-" + canary + "-key"
	}
	b, err := json.Marshal(body)
	if err != nil {
		panic(err) // maps of strings
	}
	c.Body = string(b)
	return c
}

// traffic is one client's calls: both providers, whole and streamed, one that calls a
// tool, one that is cut for length, one that writes to the cache, one that fails.
func traffic() (all []clients.Call) {
	for _, provider := range []string{"openai", "anthropic"} {
		for _, stream := range []bool{false, true} {
			all = append(all, call(provider, stream, plan))
		}
		all = append(all, call(provider, true, plan+";tool="+tool), call(provider, false, plan+";finish=length"))
	}
	return append(all, call("anthropic", true, plan+";write5m=500;think=7"), call("openai", false, "error=429"))
}

// trace is the program's own, which it names in its expensive calls.
const trace, parent = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"

// expensive is a call of 0.615 USD in a trace of the program's own.
func expensive() clients.Call {
	c := call("anthropic", false, "input=100000;tokens=21000")
	c.Headers["Traceparent"] = "00-" + trace + "-" + parent + "-01"
	return c
}

// answers are texts that llmsim's answers hold.
func answers(t *testing.T, s *trial.Sim) (texts []string) {
	t.Helper()
	for _, provider := range []string{"openai", "anthropic"} {
		c := call(provider, false, plan)
		path := map[string]string{"openai": "/v1/chat/completions", "anthropic": "/v1/messages"}[provider]
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.Plain+path, strings.NewReader(c.Body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", "application/json")
		req.Header.Set("X-Llmsim", plan)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var v struct {
			Choices []struct{ Message struct{ Content string } }
			Content []struct{ Text string }
		}
		err = json.NewDecoder(resp.Body).Decode(&v)
		resp.Body.Close()
		if err != nil {
			t.Fatalf("%s: %v", provider, err)
		}
		text := ""
		for _, c := range v.Choices {
			text += c.Message.Content
		}
		for _, c := range v.Content {
			text += c.Text
		}
		if len(text) < 40 {
			t.Fatalf("%s answered %q", provider, text)
		}
		texts = append(texts, text[:20], text[len(text)-20:])
	}
	return texts
}

// outputs is everything that comes out of an agent, and what may not be in it.
type outputs struct {
	private []string
	public  string   // what must be in all of it: a search that finds nothing proves nothing
	files   []string // folders and files
	seen    int64    // bytes looked at
	holds   map[string]bool
}

// mustHold adds folders, files and outputs in which the public text must be found.
func (o *outputs) mustHold(roots ...string) {
	for _, root := range roots {
		o.holds[root] = false
	}
}

// look looks for private texts in one output.
func (o *outputs) look(t *testing.T, where string, b []byte) {
	t.Helper()
	o.seen += int64(len(b))
	b = bytes.ToLower(b)
	for root := range o.holds {
		o.holds[root] = o.holds[root] || strings.HasPrefix(where, root) && bytes.Contains(b, []byte(o.public))
	}
	for _, p := range o.private {
		if i := bytes.Index(b, []byte(strings.ToLower(p))); i >= 0 {
			t.Errorf("%q is in %s: …%q…", p, where, b[max(0, i-80):min(len(b), i+80)])
		}
	}
}

// unseen looks for private texts in all that comes out of the agent.
func (o *outputs) unseen(t *testing.T, agent *trial.Agent, more map[string]string) {
	t.Helper()
	for _, root := range o.files {
		if err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			o.look(t, path, b)
			if os.IsNotExist(err) {
				return nil // sent and deleted
			}
			return err
		}); err != nil && !os.IsNotExist(err) {
			t.Error(err)
		}
	}
	o.look(t, "the log", []byte(agent.Log()))
	for where, text := range more {
		o.look(t, where, []byte(text))
	}
	for _, format := range []string{"text/plain", "application/openmetrics-text;version=1.0.0",
		"application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"} {
		o.look(t, "/metrics as "+format, get(t, agent.Metrics+"/metrics", format))
	}
	for _, list := range []string{"unpriced", "prices", "budgets", "machines", "attached", "unseen"} {
		o.look(t, list, get(t, agent.Metrics+"/api/v1/"+list, "application/json"))
	}
}

// looked reports every place in which even the public text was not found.
func (o *outputs) looked(t *testing.T) {
	t.Helper()
	for root, found := range o.holds {
		if !found {
			t.Errorf("%q is not in %s", o.public, root)
		}
	}
}

func get(t *testing.T, url, accept string) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Accept", accept)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || len(b) == 0) {
		err = fmt.Errorf("%s, %d bytes", resp.Status, len(b))
	}
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return b
}
