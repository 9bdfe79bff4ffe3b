package clients

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// curlCommand is one curl for all calls, told by a config file (curl -K). Bodies
// go to files body.N, what it saw of each call to standard output.
func curlCommand(path string, s *Spec, specFile string) (*exec.Cmd, error) {
	if s.Wait && s.WaitAfter > 0 {
		return nil, errors.New("curl can only wait before its first call")
	}
	if s.Wait && len(s.Before) > 0 {
		return nil, errors.New("curl cannot wait when other requests come first")
	}
	dir := filepath.Dir(specFile)
	w := s.wire()
	var b strings.Builder
	entry := 0
	add := func(method, path string, headers map[string]string, data, out string) {
		if entry > 0 {
			b.WriteString("next\n")
		}
		entry++
		set := func(key, value string) { fmt.Fprintf(&b, "%s = %s\n", key, strconv.Quote(value)) }
		set("url", s.BaseURL+path)
		set("request", method)
		set("output", out)
		if s.CA != "" {
			set("cacert", s.CA)
		}
		if s.HTTP2 {
			b.WriteString("http2\n")
		} else {
			b.WriteString("http1.1\n")
		}
		b.WriteString("silent\nshow-error\nno-buffer\n")
		for k, v := range headers {
			set("header", k+": "+v)
		}
		if headers["Expect"] == "" {
			set("header", "Expect:")
		}
		if !s.KeepAlive {
			set("header", "Connection: close")
		}
		if data != "" {
			set("data-binary", data)
		}
		if out != "/dev/null" {
			set("write-out", `%{json}\n`)
			set("dump-header", out+".head")
		}
	}
	for _, o := range s.Before {
		data := ""
		if o.Body != "" {
			data = "@" + filepath.Join(dir, fmt.Sprintf("before.%d", entry))
			if err := os.WriteFile(data[1:], []byte(o.Body), 0o600); err != nil {
				return nil, err
			}
		}
		add(o.Method, o.Path, nil, data, "/dev/null")
	}
	for i, c := range w.Calls {
		data := "@" + filepath.Join(dir, fmt.Sprintf("request.%d", i))
		if s.Wait && i == 0 {
			data = "@-"
		} else if err := os.WriteFile(data[1:], []byte(c.Body), 0o600); err != nil {
			return nil, err
		}
		add("POST", c.Path, c.Headers, data, filepath.Join(dir, fmt.Sprintf("body.%d", i)))
	}
	config := filepath.Join(dir, "curlrc")
	if err := os.WriteFile(config, []byte(b.String()), 0o600); err != nil {
		return nil, err
	}
	args := []string{"-q", "-K", config}
	if s.Concurrency > 1 {
		args = append(args, "--parallel", "--parallel-immediate", "--parallel-max", strconv.Itoa(s.Concurrency))
	}
	return exec.Command(path, args...), nil
}

// readCurl reads curl's own account of each transfer.
func readCurl(stdout []byte, n int) (*Result, error) {
	r := &Result{Calls: make([]CallResult, n)}
	for i := range r.Calls {
		r.Calls[i] = CallResult{Index: i, Error: "curl says nothing of this call"}
	}
	for line := range bytes.Lines(stdout) {
		var v struct {
			Filename string `json:"filename_effective"`
			Status   int    `json:"response_code"`
			Exit     int    `json:"exitcode"`
			Error    string `json:"errormsg"`
			Up       int64  `json:"size_upload"`
			Down     int64  `json:"size_download"`
		}
		if err := json.Unmarshal(line, &v); err != nil {
			return nil, fmt.Errorf("read curl's account: %w", err)
		}
		i, err := strconv.Atoi(strings.TrimPrefix(filepath.Ext(v.Filename), "."))
		if err != nil || i < 0 || i >= n {
			return nil, fmt.Errorf("read curl's account: no call wrote %q", v.Filename)
		}
		r.Calls[i] = CallResult{
			Index: i, Status: v.Status, OK: v.Exit == 0, Error: v.Error, Sent: v.Up, Received: v.Down,
		}
	}
	return r, nil
}

// readCurlBodies takes the ids from the heads and bodies that curl stored in dir.
func readCurlBodies(dir string, r *Result) {
	for i := range r.Calls {
		c := &r.Calls[i]
		name := filepath.Join(dir, fmt.Sprintf("body.%d", i))
		head, _ := os.ReadFile(name + ".head")
		for line := range strings.Lines(string(head)) {
			if k, v, ok := strings.Cut(line, ":"); ok && strings.EqualFold(k, "x-request-id") {
				c.RequestID = strings.TrimSpace(v)
			}
		}
		body, _ := os.ReadFile(name)
		c.ID = responseID(body)
	}
}

// responseID is the id a body states: at the top of a JSON value, or in one of the
// first events of a stream.
func responseID(body []byte) string {
	read := func(b []byte) string {
		var v struct {
			ID      string
			Message struct{ ID string }
		}
		if json.Unmarshal(b, &v) != nil {
			return ""
		}
		if v.ID != "" {
			return v.ID
		}
		return v.Message.ID
	}
	if id := read(body); id != "" {
		return id
	}
	for line := range bytes.Lines(body) {
		if data, ok := bytes.CutPrefix(line, []byte("data:")); ok {
			if id := read(data); id != "" {
				return id
			}
		}
	}
	return ""
}
