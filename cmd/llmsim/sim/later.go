package sim

import (
	"cmp"
	"net/http"
	"strings"
	"sync"

	"github.com/tollwire/tollwire/llm"
)

// later are the answers that are made while nobody waits, and fetched by GET.
type later struct {
	mu   sync.Mutex
	jobs map[string]*job
}

// maxJobs bounds the answers that wait to be fetched.
const maxJobs = 1024

// job is one of them: not ready when it is asked for the first time, ready from the
// second on.
type job struct {
	running, done []byte
	usage         llm.Usage
	finish        string
	entry         *Entry
	asked         int
}

func (l *later) put(id string, j *job) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.jobs == nil {
		l.jobs = make(map[string]*job)
	}
	if len(l.jobs) < maxJobs {
		l.jobs[id] = j
	}
}

// serveLater answers GET …/ID. The call's entry is made complete when its answer is
// fetched for the first time.
func (s *Server) serveLater(w http.ResponseWriter, r *http.Request) bool {
	id := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	l := &s.later
	l.mu.Lock()
	defer l.mu.Unlock()
	j := l.jobs[id]
	if j == nil || r.Method != http.MethodGet {
		return false
	}
	body := j.running
	if j.asked++; j.asked > 1 {
		body = j.done
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(body)
	if j.asked == 2 {
		e := j.entry
		e.Usage, e.Stated, e.End = classes(&j.usage), llm.Exact.String(), Now()
		if j.finish != "" {
			e.Finish = []string{j.finish}
		}
		s.ledger.add(e)
	}
	return true
}

// background answers a call of the Responses API that nobody waits for.
func (r *response) background() (*answer, error) {
	c := r.c
	state := func(status string, done bool) ([]byte, llm.Usage) {
		o, u := r.state(status, done)
		o["background"] = true
		return indented(o), u
	}
	j := &job{finish: r.finish(), entry: c.entry}
	queued, _ := state("queued", false)
	j.running, _ = state("in_progress", false)
	j.done, j.usage = state(r.status(), true)
	c.s.later.put(c.entry.ID, j)
	c.later = true
	return &answer{header: openaiHeader(c), unary: queued, noUsage: true}, nil
}

// replicate is POST /v1/models/…/predictions: with "Prefer: wait" the answer is there
// at once, else it is fetched.
var replicate = &vendor{
	provider: "replicate", operation: "text_completion",
	prepare: func(c *call) {
		model, _, _ := strings.Cut(strings.TrimPrefix(c.r.URL.Path, "/v1/models/"), "/predictions")
		c.ask.Model, c.ask.Stream = model, false
	},
	respond: func(c *call) (*answer, error) {
		e, p := c.entry, &c.plan
		e.ID, e.Served = c.tag, cmp.Or(p.Model, c.ask.Model)
		u := tokens(p.Input, p.Tokens)
		u.Set(llm.Seconds, 1.5)
		e.Generated = classes(&u)
		state := func(status string) object {
			return object{"id": e.ID, "model": e.Served, "input": object{"prompt": "hi"}, "status": status, "error": nil}
		}
		done := state("succeeded")
		done["output"] = []any{c.said()}
		done["metrics"] = object{"input_token_count": p.Input, "output_token_count": p.Tokens, "predict_time": 1.5}
		a := &answer{header: http.Header{}, status: http.StatusCreated}
		if strings.HasPrefix(c.r.Header.Get("Prefer"), "wait") {
			a.unary, a.visible, a.usage, a.finish = compact(done), true, u, []string{"succeeded"}
			return a, nil
		}
		c.s.later.put(e.ID, &job{running: compact(state("processing")), done: compact(done), usage: u, finish: "succeeded", entry: e})
		c.later = true
		a.unary, a.noUsage = compact(state("starting")), true
		return a, nil
	},
	refusal: func(_ *call, status int, message string) ([]byte, string, string) {
		return compact(object{"detail": message, "status": status}), "", ""
	},
}
