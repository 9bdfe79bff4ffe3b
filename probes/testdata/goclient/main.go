// Command goclient makes one request, as soon as it can.
package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	http.DefaultTransport.(*http.Transport).TLSHandshakeTimeout = 0 // emulated machines are slow
	resp, err := http.Post(os.Args[1], "application/json", strings.NewReader("{}"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	io.Copy(os.Stdout, resp.Body)
	resp.Body.Close()
}
