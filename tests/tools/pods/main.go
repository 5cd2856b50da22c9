// What runs in the pods of the e2e tests besides Bellhop: nothing at all (the pause container of each
// pod), a consumer of the feed, and a receiver of http events. Written apart from Bellhop and in
// another language: it knows of CloudEvents and the feed what the documents say.
//
//	pods                                        waits for a signal
//	pods feed URL TOKENFILE                     reads the feed's event stream; shows it at :8080/
//	pods sink                                   takes events at :8080/events; shows them at :8080/
//
// Both answer GET / with {"events": N, "repeats": N, "errors": [...], "entities": {key: event}}: of
// each entity the newest event, of which going back in time is an error.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

type event struct {
	ID       string          `json:"id"`
	Type     string          `json:"type"`
	Subject  string          `json:"subject"`
	Sequence string          `json:"sequence"`
	Data     json.RawMessage `json:"data,omitempty"`
	// When it came here first, Unix milliseconds.
	At int64 `json:"at"`
}

type memory struct {
	mutex    sync.Mutex
	seen     map[string]bool
	Events   int              `json:"events"`
	Repeats  int              `json:"repeats"`
	Errors   []string         `json:"errors"`
	Entities map[string]event `json:"entities"`
}

func (m *memory) take(one event) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	if one.ID == "" || one.Subject == "" || one.Sequence == "" {
		m.Errors = append(m.Errors, fmt.Sprintf("an event without id, subject or sequence: %+v", one))
		return
	}
	if m.seen[one.ID] {
		m.Repeats++
		return
	}
	m.seen[one.ID] = true
	m.Events++
	one.At = time.Now().UnixMilli()
	// Sequences are twenty digits: texts compare as numbers do.
	if last, known := m.Entities[one.Subject]; known && one.Sequence <= last.Sequence {
		m.Errors = append(m.Errors, fmt.Sprintf("%s went back from %s to %s", one.Subject, last.Sequence, one.Sequence))
		return
	}
	m.Entities[one.Subject] = one
}

func (m *memory) fail(what string) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	m.Errors = append(m.Errors, what)
}

func (m *memory) show(out http.ResponseWriter, _ *http.Request) {
	m.mutex.Lock()
	defer m.mutex.Unlock()
	out.Header().Set("Content-Type", "application/json")
	json.NewEncoder(out).Encode(m)
}

// Reads the event stream for ever, each time from where the last one ended.
func (m *memory) follow(url, tokenFile string) {
	var cursor string
	for ; ; time.Sleep(200 * time.Millisecond) {
		token, err := os.ReadFile(tokenFile)
		if err != nil {
			m.fail(err.Error())
			return
		}
		request, _ := http.NewRequest("GET", url, nil)
		request.Header.Set("Accept", "text/event-stream")
		request.Header.Set("Authorization", "Bearer "+strings.TrimSpace(string(token)))
		if cursor != "" {
			request.Header.Set("Last-Event-ID", cursor)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			continue // the receiver is not there, or not yet
		}
		if answer.StatusCode == 200 {
			m.read(answer.Body, &cursor)
		} else if answer.StatusCode == 410 && cursor != "" {
			cursor = "" // another store than the cursor's: everything from the beginning
			// 401: the token's file is older than the token; it is read again.
		} else if answer.StatusCode != 401 && answer.StatusCode != 503 && answer.StatusCode != 429 {
			m.fail("the feed answered " + answer.Status)
		}
		answer.Body.Close()
	}
}

// One stream to its end: `id:` is the cursor of the event in `data:`; an empty line ends it.
func (m *memory) read(body io.Reader, cursor *string) {
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 16<<20)
	var id, data string
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch {
		case name == "id":
			id = value
		case name == "data":
			data += value
		case name == "" && value == "" && data != "":
			var one event
			if err := json.Unmarshal([]byte(data), &one); err != nil {
				m.fail(err.Error())
			}
			m.take(one)
			*cursor, data = id, ""
		}
	}
}

// An event in binary mode: attributes are headers, the body is the data.
func (m *memory) receive(out http.ResponseWriter, in *http.Request) {
	data, err := io.ReadAll(in.Body)
	if err != nil {
		out.WriteHeader(http.StatusBadRequest)
		return
	}
	m.take(event{
		ID: in.Header.Get("ce-id"), Type: in.Header.Get("ce-type"), Subject: in.Header.Get("ce-subject"),
		Sequence: in.Header.Get("ce-sequence"), Data: data,
	})
	out.WriteHeader(http.StatusNoContent)
}

func main() {
	memory := &memory{seen: map[string]bool{}, Errors: []string{}, Entities: map[string]event{}}
	http.HandleFunc("GET /", memory.show)
	switch {
	case len(os.Args) == 1:
	case len(os.Args) == 4 && os.Args[1] == "feed":
		go memory.follow(os.Args[2], os.Args[3])
		go http.ListenAndServe(":8080", nil)
	case len(os.Args) == 2 && os.Args[1] == "sink":
		http.HandleFunc("POST /events", memory.receive)
		go http.ListenAndServe(":8080", nil)
	default:
		fmt.Fprintln(os.Stderr, "usage: pods | pods feed URL TOKENFILE | pods sink")
		os.Exit(2)
	}
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM, syscall.SIGINT)
	<-end
}
