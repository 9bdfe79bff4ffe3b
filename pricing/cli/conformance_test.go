package cli

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/tollwire/tollwire/pricing"
)

// corpora is the folder of recorded traffic, beside the repository's root.
func corpora(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			break
		}
		if dir == filepath.Dir(dir) {
			t.Fatal("no go.mod above the test")
		}
		dir = filepath.Dir(dir)
	}
	dir = filepath.Join(dir, "..", "shared", "corpora")
	if _, err := os.Stat(dir); err != nil {
		t.Fatalf("the corpora are missing: %v", err)
	}
	return dir
}

// clock is the moment that usages.json's prices are for, as the corpora's README says.
const clock = "2025-11-06T12:00:00Z"

// expected is one price that genai-prices gives for one reading of one body.
type expected struct {
	question map[string]any
	usd      *big.Rat
}

func readExpected(t testing.TB) (out []expected) {
	data, err := os.ReadFile(filepath.Join(corpora(t), "genai-prices", "usages.json"))
	if err != nil {
		t.Fatal(err)
	}
	var cases []struct {
		Model     string
		Extracted []struct {
			Usage      map[string]int64
			Extractors []struct {
				Provider string  `json:"provider_id"`
				Flavor   string  `json:"api_flavor"`
				Input    *string `json:"input_price"`
				Output   *string `json:"output_price"`
				Total    *string `json:"total_price"`
			}
		}
	}
	if err := json.Unmarshal(data, &cases); err != nil {
		t.Fatal(err)
	}
	for i, c := range cases {
		for j, e := range c.Extracted {
			for k, x := range e.Extractors {
				if x.Input == nil && x.Output == nil && x.Total == nil {
					continue
				}
				usd := new(big.Rat)
				if x.Total != nil {
					usd = rat(t, *x.Total)
				} else {
					for _, part := range []*string{x.Input, x.Output} {
						if part != nil {
							usd.Add(usd, rat(t, *part))
						}
					}
				}
				out = append(out, expected{map[string]any{
					"id":       fmt.Sprintf("%d.%d.%d:%s/%s", i, j, k, x.Provider, x.Flavor),
					"provider": x.Provider, "model": c.Model, "at": clock, "usage": disjoint(e.Usage),
				}, usd})
			}
		}
	}
	return out
}

func rat(t testing.TB, s string) *big.Rat {
	r, ok := new(big.Rat).SetString(s)
	if !ok {
		t.Fatalf("no number: %q", s)
	}
	return r
}

// disjoint turns genai-prices' nested counts, where input_tokens holds every part,
// into classes of which no token is in two.
func disjoint(n map[string]int64) map[string]int64 {
	out := map[string]int64{}
	put := func(class string, v int64) {
		if v != 0 {
			out[class] = v
		}
	}
	audio := n["input_audio_tokens"] - n["cache_audio_read_tokens"]
	image := n["input_image_tokens"] - n["cache_image_read_tokens"]
	video := n["input_video_tokens"] - n["cache_video_read_tokens"]
	if total, ok := n["input_tokens"]; ok {
		out["input"] = total - n["cache_read_tokens"] - n["cache_write_tokens"] - audio - image - video - n["input_tool_tokens"]
	}
	put("cache_read", n["cache_read_tokens"]-n["cache_audio_read_tokens"])
	put("cache_read_audio", n["cache_audio_read_tokens"])
	put("cache_write_5m", n["cache_write_5m_tokens"])
	put("cache_write_1h", n["cache_write_1h_tokens"])
	put("cache_write", n["cache_write_tokens"]-n["cache_write_5m_tokens"]-n["cache_write_1h_tokens"])
	put("input_audio", audio)
	put("input_image", image)
	put("input_video", video)
	put("tool_input", n["input_tool_tokens"])
	if total, ok := n["output_tokens"]; ok {
		out["output"] = total - n["output_reasoning_tokens"] - n["output_audio_tokens"] - n["output_image_tokens"]
	}
	put("reasoning", n["output_reasoning_tokens"])
	put("output_audio", n["output_audio_tokens"])
	put("output_image", n["output_image_tokens"])
	put("searches", n["web_searches"])
	if len(out) == 0 { // the bodies state zeros, which genai-prices' reading leaves out
		out["input"], out["output"] = 0, 0
	}
	return out
}

// ask sends questions through the function that `tollwire price` is, or through the
// program itself where TOLLWIRE names one.
func ask(t testing.TB, b *pricing.Book, questions []map[string]any) map[string]answer {
	t.Helper()
	var in, out bytes.Buffer
	enc := json.NewEncoder(&in)
	for _, q := range questions {
		if err := enc.Encode(q); err != nil {
			t.Fatal(err)
		}
	}
	if program := os.Getenv("TOLLWIRE"); program != "" {
		cmd := exec.Command(program, "price")
		cmd.Stdin, cmd.Stdout, cmd.Stderr = &in, &out, os.Stderr
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
	} else if err := Price(b, &in, &out); err != nil {
		t.Fatal(err)
	}
	answers := map[string]answer{}
	dec := json.NewDecoder(&out)
	for range questions {
		var a answer
		if err := dec.Decode(&a); err != nil {
			t.Fatal(err)
		}
		answers[a.ID] = a
	}
	return answers
}

// tolerance is half of the last digit that a bill shows: 5e-9 USD.
var tolerance = big.NewRat(5, 1_000_000_000)

func TestExpectedPrices(t *testing.T) {
	b, err := pricing.Default()
	if err != nil {
		t.Fatal(err)
	}
	cases := readExpected(t)
	var questions []map[string]any
	for _, c := range cases {
		questions = append(questions, c.question)
	}
	answers := ask(t, b, questions)
	met := 0
	for _, c := range cases {
		a := answers[c.question["id"].(string)]
		if a.Unpriced != "" {
			t.Errorf("%v: unpriced, %s; want %s", c.question, a.Unpriced, c.usd.FloatString(12))
			continue
		}
		off := new(big.Rat).Sub(rat(t, a.USD), c.usd)
		if off.Abs(off).Cmp(tolerance) > 0 {
			t.Errorf("%v: %s, want %s", c.question, a.USD, c.usd.FloatString(12))
			continue
		}
		met++
	}
	stated, all := statedCosts(t, b)
	fmt.Printf("pricing: %d/%d expected prices, stated %.1f%% (%d/%d)\n", met, len(cases), 100*float64(stated)/float64(all), stated, all)
}

// recorded is a line of expected.jsonl.
type recorded struct {
	ID            string
	Provider      string
	Family        string
	RequestModel  string `json:"request_model"`
	ResponseModel string `json:"response_model"`
	Usage         map[string]float64
	Stated        *string `json:"stated_cost_usd"`
}

func readRecorded(t testing.TB) (out []recorded) {
	f, err := os.Open(filepath.Join(corpora(t), "expected.jsonl.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	scan := bufio.NewScanner(z)
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		var r recorded
		if err := json.Unmarshal(scan.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		out = append(out, r)
	}
	if scan.Err() != nil || len(out) == 0 {
		t.Fatal("no expectations", scan.Err())
	}
	return out
}

// wire is what the recorded exchange says beside the expectation.
type wire struct {
	at                              string
	completion, reasoning, searches int
}

var (
	reasoningCount  = regexp.MustCompile(`"reasoning_tokens":\s*(\d+)`)
	completionCount = regexp.MustCompile(`"completion_tokens":\s*(\d+)`)
	searchCount     = regexp.MustCompile(`"web_search_requests":\s*(\d+)`)
)

// readWire reads the recordings of the providers that state costs.
func readWire(t testing.TB) map[string]wire {
	out := map[string]wire{}
	for _, family := range []string{"openrouter", "vercel", "avian", "xai"} {
		files, err := filepath.Glob(filepath.Join(corpora(t), "*", family+"*.har.gz"))
		if err != nil || len(files) == 0 {
			t.Fatalf("no recordings of %s: %v", family, err)
		}
		for _, file := range files {
			f, err := os.Open(file)
			if err != nil {
				t.Fatal(err)
			}
			z, err := gzip.NewReader(f)
			if err != nil {
				t.Fatal(err)
			}
			var har struct {
				Log struct {
					Entries []struct {
						ID       string `json:"_id"`
						Started  string `json:"startedDateTime"`
						Response struct{ Content struct{ Text string } }
					}
				}
			}
			if err := json.NewDecoder(z).Decode(&har); err != nil {
				t.Fatal(err)
			}
			f.Close()
			for _, e := range har.Log.Entries {
				last := func(re *regexp.Regexp) (n int) {
					if all := re.FindAllStringSubmatch(e.Response.Content.Text, -1); len(all) > 0 {
						n, _ = strconv.Atoi(all[len(all)-1][1])
					}
					return n
				}
				out[e.ID] = wire{e.Started, last(completionCount), last(reasoningCount), last(searchCount)}
			}
		}
	}
	return out
}

// statedCosts prices the calls whose cost their provider states, from the list
// alone, and counts those met within 0.1 %. Two things that the expectations leave
// out are taken from the wire: searches, and reasoning that stands apart from the
// completion, as it must where there is more of it.
func statedCosts(t testing.TB, b *pricing.Book) (met, all int) {
	wires := readWire(t)
	var questions []map[string]any
	stated := map[string]recorded{}
	for _, r := range readRecorded(t) {
		if r.Stated == nil {
			continue
		}
		provider := r.Provider
		if provider == "" { // gateways that OpenTelemetry has no name for
			provider = map[string]string{"vercel-chat": "vercel", "avian-chat": "avian"}[r.Family]
		}
		w, ok := wires[r.ID]
		if !ok {
			t.Fatalf("no recording of %s", r.ID)
		}
		if w.reasoning > w.completion && r.Provider == "" {
			r.Usage["output"], r.Usage["reasoning"] = float64(w.completion), float64(w.reasoning)
		}
		if w.searches > 0 {
			r.Usage["searches"] = float64(w.searches)
		}
		questions = append(questions, map[string]any{
			"id": r.ID, "provider": provider, "model": r.ResponseModel, "request_model": r.RequestModel,
			"at": w.at, "usage": r.Usage,
		})
		stated[r.ID] = r
	}
	answers := ask(t, b, questions)
	for _, q := range questions {
		r := stated[q["id"].(string)]
		a := answers[r.ID]
		want := rat(t, *r.Stated)
		if a.Unpriced != "" {
			t.Logf("stated %s, unpriced %s: %s %s %s %v %s", *r.Stated, a.Unpriced, r.Family, r.ResponseModel, r.RequestModel, r.Usage, r.ID)
			continue
		}
		off := new(big.Rat).Sub(rat(t, a.USD), want)
		if off.Abs(off).Cmp(new(big.Rat).Mul(want, big.NewRat(1, 1000))) > 0 {
			t.Logf("stated %s, list %s: %s %s %s %v %s", *r.Stated, a.USD, r.Family, r.ResponseModel, r.RequestModel, r.Usage, r.ID)
			continue
		}
		met++
	}
	if met*10 < len(questions)*9 {
		t.Errorf("stated costs: %d of %d met, want nine in ten", met, len(questions))
	}
	return met, len(questions)
}
