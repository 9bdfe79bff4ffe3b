package jsonscan_test

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/tollwire/tollwire/decoder/jsonscan"
	"github.com/tollwire/tollwire/har"
)

// chunks are the data of recorded chat streams, an event each.
func chunks(b *testing.B) (events [][]byte, size int64) {
	b.Helper()
	const corpora = "../../../shared/corpora"
	for _, name := range []string{"pydantic-ai/openai-chat", "openllmetry/openai-chat", "fantasy/openai-chat", "pydantic-ai/groq-chat", "fantasy/zai-chat"} {
		path := filepath.Join(corpora, name+".har.gz")
		if _, err := os.Stat(path); err != nil {
			b.Fatalf("the recorded corpora are not there: %v", err)
		}
		r, err := har.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		for {
			e, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				b.Fatal(err)
			}
			for line := range bytes.Lines(e.Response.Body) {
				if data, ok := bytes.CutPrefix(line, []byte("data: {")); ok {
					events = append(events, append([]byte("{"), bytes.TrimSpace(data)...))
					size += int64(len(events[len(events)-1]))
				}
			}
		}
		r.Close()
	}
	return events, size
}

// Both read the same fields of every chunk: id, model, the text's length, the finish
// reason, the total of the usage.

func BenchmarkScan(b *testing.B) {
	events, size := chunks(b)
	b.SetBytes(size)
	b.ReportAllocs()
	var s jsonscan.Scanner
	var id, model, finish string
	var text, total int64
	for b.Loop() {
		for _, e := range events {
			s.ResetBytes(e)
			for key := range s.Object {
				switch string(key) {
				case "id":
					s.Into(&id)
				case "model":
					s.Into(&model)
				case "choices":
					for range s.Array {
						for key := range s.Object {
							switch string(key) {
							case "delta":
								for key := range s.Object {
									if string(key) == "content" {
										n, _ := s.TextLen()
										text += n
									}
								}
							case "finish_reason":
								s.Into(&finish)
							}
						}
					}
				case "usage":
					for key := range s.Object {
						if string(key) == "total_tokens" {
							n, _ := s.Int()
							total += n
						}
					}
				}
			}
			if s.Err() != nil {
				b.Fatal(s.Err())
			}
		}
	}
}

func BenchmarkGJSON(b *testing.B) {
	events, size := chunks(b)
	b.SetBytes(size)
	b.ReportAllocs()
	var id, model, finish string
	var text, total int64
	for b.Loop() {
		for _, e := range events {
			r := gjson.GetManyBytes(e, "id", "model", "choices.0.delta.content", "choices.0.finish_reason", "usage.total_tokens")
			id, model, finish = r[0].Str, r[1].Str, r[3].Str
			text += int64(len(r[2].Str))
			total += r[4].Int()
		}
	}
	_, _, _ = id, model, finish
}

// BenchmarkGJSONWalk goes over every chunk once, as a scanner does.
func BenchmarkGJSONWalk(b *testing.B) {
	events, size := chunks(b)
	b.SetBytes(size)
	b.ReportAllocs()
	var id, model, finish string
	var text, total int64
	for b.Loop() {
		for _, e := range events {
			gjson.ParseBytes(e).ForEach(func(key, v gjson.Result) bool {
				switch key.Str {
				case "id":
					id = v.Str
				case "model":
					model = v.Str
				case "choices":
					v.ForEach(func(_, v gjson.Result) bool {
						text += int64(len(v.Get("delta.content").Str))
						finish = v.Get("finish_reason").Str
						return true
					})
				case "usage":
					total += v.Get("total_tokens").Int()
				}
				return true
			})
		}
	}
	_, _, _ = id, model, finish
}

func BenchmarkSkip(b *testing.B) {
	events, size := chunks(b)
	b.SetBytes(size)
	var s jsonscan.Scanner
	for b.Loop() {
		for _, e := range events {
			s.ResetBytes(e)
			s.Skip()
		}
	}
}
