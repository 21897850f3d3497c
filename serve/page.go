package serve

import (
	"bytes"
	_ "embed"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"flanneld/api"
)

//go:embed page.html
var pageText string

// maxQuery bounds what is searched for, in bytes.
const maxQuery = 100

// PageSources are where the status page gets its facts. They are called for each request, by several goroutines at
// once.
type PageSources struct {
	Status  func() api.Status
	Peers   func() []api.Peer
	Events  func() []api.Event
	Traffic func(devices []string) []DeviceTraffic // what the kernel has counted
}

// StatusPage serves the cluster as this host sees it, as one page without scripts and without outside resources. It
// changes nothing. Its query has "q", what to search the peers for, and "still", which keeps the page from being loaded
// again.
func StatusPage(from PageSources) http.Handler {
	page := template.Must(template.New("page").Funcs(pageFuncs).Parse(pageText))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		query := strings.TrimSpace(r.URL.Query().Get("q"))
		d := newPageData(from, query[:min(len(query), maxQuery)])
		d.Still = r.URL.Query().Has("still")
		var b bytes.Buffer
		if err := page.Execute(&b, d); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'")
		_, _ = w.Write(b.Bytes()) // nothing to do for a client who has gone
	})
}

var pageFuncs = template.FuncMap{
	"ago":   func(t time.Time) string { return time.Since(t).Round(time.Second).String() },
	"left":  func(t time.Time) string { return time.Until(t).Round(time.Second).String() },
	"at":    func(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") },
	"list":  func(v any) string { return strings.Trim(fmt.Sprint(v), "[]") },
	"ms":    milliseconds,
	"bytes": api.Size,
	"count": func(n any, noun string) string { return api.Count(number64(n), noun) },
}

func number64(n any) uint64 {
	switch n := n.(type) {
	case int:
		return uint64(n)
	case uint64:
		return n
	}
	return 0
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}
