package plugin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"time"
)

const (
	daemonTimeout = 2 * time.Second // for the whole question
	maxAnswer     = 64 << 10        // bytes
)

// Liveness is what the daemon's socket says.
type Liveness int

// A daemon without a socket may be one that has none; only its subnet file speaks for it then.
const (
	NoSocket Liveness = iota
	NotRunning
	Silent
	NotReady
	Ready
)

// Daemon is the state of the daemon that writes a subnet file.
type Daemon struct {
	Liveness Liveness
	Socket   string
	Reason   string // why it is not ready, in its own words
}

// AskDaemon asks the daemon on the socket beside its subnet file whether it is ready. It returns within some two
// seconds.
func AskDaemon(subnetFile string) Daemon {
	d := Daemon{Socket: strings.TrimSuffix(subnetFile, ".env") + ".sock"}
	ready, reason, err := askReady(d.Socket)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		d.Liveness = NoSocket
	case errors.Is(err, syscall.ECONNREFUSED):
		d.Liveness = NotRunning
	case err != nil:
		d.Liveness, d.Reason = Silent, err.Error()
	case ready:
		d.Liveness = Ready
	default:
		d.Liveness, d.Reason = NotReady, reason
	}
	return d
}

// askReady speaks just enough HTTP for one question: the client of the standard library would double the time that the
// plugin takes to start, which is paid by each container.
func askReady(socket string) (ready bool, reason string, err error) {
	conn, err := net.DialTimeout("unix", socket, daemonTimeout)
	if err != nil {
		return false, "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(daemonTimeout)); err != nil {
		return false, "", err
	}
	if _, err := io.WriteString(conn, "GET /v1/ready HTTP/1.0\r\nHost: flanneld\r\n\r\n"); err != nil {
		return false, "", err
	}
	text, err := io.ReadAll(io.LimitReader(conn, maxAnswer))
	if err != nil {
		return false, "", err
	}
	head, body, _ := bytes.Cut(text, []byte("\r\n\r\n"))
	fields := strings.Fields(string(head))
	if len(fields) < 2 || !strings.HasPrefix(fields[0], "HTTP/1.") {
		return false, "", fmt.Errorf("answer of %s is not HTTP", socket)
	}
	var answer struct {
		Ready  bool   `json:"ready"`
		Reason string `json:"reason"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return false, "", fmt.Errorf("answer %s of %s: %w", fields[1], socket, err)
	}
	return answer.Ready && fields[1] == "200", answer.Reason, nil
}

// explain says in one sentence what the daemon's state has to do with a subnet file that is missing, and what to do
// about it.
func (d Daemon) explain() (what, todo string) {
	switch d.Liveness {
	case NotRunning:
		return "flanneld is not running", "start flanneld; its log says why it ended"
	case Silent:
		return "flanneld does not answer on " + d.Socket, "look at the log of flanneld: " + d.Reason
	case NotReady:
		return "flanneld is not ready: " + d.Reason, "the container can start as soon as flanneld is ready"
	case Ready:
		return "flanneld is ready but writes another subnet file",
			`compare its flag -subnet-file with "subnetFile" of the network configuration`
	default:
		return "flanneld is not running (no socket " + d.Socket + ")",
			`start flanneld, or if it runs, compare its flag -subnet-file with "subnetFile" of the network configuration`
	}
}
