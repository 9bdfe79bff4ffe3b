// Command relay turns Alertmanager's webhook into the messages of chat groups:
//
//	relay -to dingtalk=FILE -to feishu=FILE -to wecom=FILE -to slack=FILE
//
// Each FILE holds the group robot's URL on its first line and, for DingTalk and
// Feishu, the robot's signing secret on its second, if it has one. Alertmanager posts
// to /dingtalk, /feishu, /wecom or /slack; a message that the group did not take is
// answered with 502, so that Alertmanager sends it again.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	listen := flag.String("listen", "127.0.0.1:9465", "address that Alertmanager posts to")
	targets := map[string]*target{}
	flag.Func("to", "CHAT=FILE, CHAT one of dingtalk, feishu, wecom, slack (repeatable)", func(s string) error {
		chat, file, ok := strings.Cut(s, "=")
		if !ok || shapes[chat] == nil {
			return errors.New("want dingtalk=FILE, feishu=FILE, wecom=FILE or slack=FILE")
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		url, secret, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		targets[chat] = &target{url: strings.TrimSpace(url), secret: strings.TrimSpace(secret), shape: shapes[chat]}
		return nil
	})
	flag.Parse()
	if flag.NArg() > 0 || len(targets) == 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	srv := &http.Server{Addr: *listen, Handler: handler(targets, slog.Default()), ReadTimeout: 10 * time.Second, WriteTimeout: 20 * time.Second, MaxHeaderBytes: 16 << 10}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	if err := srv.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		slog.Error("serve", "err", err)
		os.Exit(1)
	}
}

// target is one chat group.
type target struct {
	url, secret string
	shape       shape
}

// maxMessage bounds what is read from Alertmanager and from a group.
const maxMessage = 1 << 20

func handler(targets map[string]*target, log *slog.Logger) http.Handler {
	client := &http.Client{Timeout: 10 * time.Second}
	mux := http.NewServeMux()
	for chat, t := range targets {
		mux.HandleFunc("POST /"+chat, func(w http.ResponseWriter, r *http.Request) {
			var n notification
			if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxMessage)).Decode(&n); err != nil {
				http.Error(w, "not a message of Alertmanager: "+err.Error(), http.StatusBadRequest)
				return
			}
			if err := t.send(r.Context(), client, &n, time.Now()); err != nil {
				log.Error("send", "chat", chat, "err", err)
				http.Error(w, "the group did not take it", http.StatusBadGateway)
			}
		})
	}
	return mux
}

func (t *target) send(ctx context.Context, c *http.Client, n *notification, now time.Time) error {
	url, body := t.shape(t, n, now)
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(b))
	if err != nil {
		return errors.New("the robot's URL cannot be used") // it holds a key, so it is not repeated
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("post: %w", errors.Unwrap(err)) // without the URL
	}
	defer resp.Body.Close()
	reply, err := io.ReadAll(io.LimitReader(resp.Body, maxMessage))
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("post: %s", resp.Status)
	}
	if err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	return refused(reply)
}

// refused reads the answer: the robots say 200 to what they refuse, too, with a code
// in the body. Slack says "ok".
func refused(reply []byte) error {
	var r struct {
		ErrCode int    `json:"errcode"` // DingTalk, WeCom
		ErrMsg  string `json:"errmsg"`
		Code    int    `json:"code"` // Feishu
		Msg     string `json:"msg"`
	}
	if json.Unmarshal(reply, &r) == nil && (r.ErrCode != 0 || r.Code != 0) {
		return fmt.Errorf("refused: %d%d %s%s", r.ErrCode, r.Code, r.ErrMsg, r.Msg)
	}
	return nil
}
