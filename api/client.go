package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"
)

// ErrNoDaemon says that nobody listens on the socket.
var ErrNoDaemon = errors.New("no daemon answers on the socket")

const (
	dialTime  = 2 * time.Second
	maxAnswer = 64 << 20 // bytes: the leases of a very large network
)

// Client asks the daemon of one network. It may be used by several goroutines.
type Client struct {
	path string
	http *http.Client
}

// NewClient returns a client for the daemon that writes this subnet file. It does not connect.
func NewClient(subnetFile string) *Client {
	c := &Client{path: SocketPath(subnetFile)}
	d := net.Dialer{Timeout: dialTime}
	c.http = &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn,
			error) {
			return d.DialContext(ctx, "unix", c.path)
		},
		DisableKeepAlives: true,
	}}
	return c
}

// Path returns the path of the socket.
func (c *Client) Path() string { return c.path }

// Get reads one of the paths into v. The answer 503 of PathReady is no error.
func (c *Client) Get(ctx context.Context, path string, v any) error {
	return c.do(ctx, http.MethodGet, path, nil, v)
}

// Post sends a body to one of the paths and reads the answer into v.
func (c *Client) Post(ctx context.Context, path string, body []byte, v any) error {
	return c.do(ctx, http.MethodPost, path, body, v)
}

func (c *Client) do(ctx context.Context, method, path string, body []byte, v any) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://flanneld"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	res, err := c.http.Do(req)
	switch {
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%w %s", ErrNoDaemon, c.path)
	case err != nil:
		return fmt.Errorf("ask %s: %w", c.path, errors.Unwrap(err))
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("read answer of %s: %w", c.path, err)
	}
	if res.StatusCode != http.StatusOK && (path != PathReady || res.StatusCode != http.StatusServiceUnavailable) {
		var p Problem
		if json.Unmarshal(text, &p) != nil || p.Error == "" {
			p.Error = fmt.Sprintf("%s %s: %s", method, path, res.Status)
		}
		return errors.New(p.Error)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return fmt.Errorf("invalid answer to %s %s: %w", method, path, err)
	}
	return nil
}
