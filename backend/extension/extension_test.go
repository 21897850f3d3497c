package extension_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"flanneld/backend"
	"flanneld/backend/extension"
	"flanneld/backend/extension/options"
	"flanneld/ip"
	"flanneld/ip/iptest"
	"flanneld/need"
	"flanneld/subnet"
)

// bench is a host with the backend, whose commands are scripts in a folder of their own.
type bench struct {
	t   *testing.T
	dir string
	log *bytes.Buffer
	b   *extension.Backend
	all *backend.Applier
}

// script writes an executable, and returns its path.
func script(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncd "+dir+"\n"+text+"\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// start returns the backend with commands by their keys, after an earlier run that had some peers.
func start(t *testing.T, limit time.Duration, scripts map[string]string, former ...subnet.Record) (*bench, error) {
	t.Helper()
	e := &bench{t: t, dir: t.TempDir(), log: &bytes.Buffer{}}
	options := ""
	for key, text := range scripts {
		options += fmt.Sprintf(`,%q:%q`, key, script(t, e.dir, key, text)+" $SUBNET ${PUBLIC_IP} $HOME")
	}
	c, err := subnet.ParseConfig([]byte(`{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48","Backend":{"Type":"extension"` + options + `}}`))
	if err != nil {
		t.Fatal(err)
	}
	addrs := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}
	h := ip.Host{Kernel: iptest.NewKernel(iptest.Faults{}), Log: slog.New(slog.NewTextHandler(e.log, nil)),
		Underlay: func() ip.Underlay {
			return ip.Underlay{Link: "eth0", MTU: 1500, Addrs: addrs, PublicAddrs: addrs}
		}}
	e.b, err = extension.NewWithLimit(t.Context(), c, h, limit, former...)
	if err == nil {
		e.all = backend.NewApplier(e.b, h, c.Networks())
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error)
		go func() { ended <- e.b.Run(ctx) }()
		t.Cleanup(func() {
			cancel()
			<-ended
		})
	}
	return e, err
}

func lease(prefix, public, data string) subnet.Lease {
	return subnet.Lease{Subnet: netip.MustParsePrefix(prefix),
		Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr(public), BackendType: extension.Type, BackendData: data}}
}

var self = []subnet.Lease{lease("10.5.34.0/24", "192.0.2.1", ""), lease("fd00:5:0:22::/64", "2001:db8::1", "")}

func (e *bench) set(leases ...subnet.Lease) error { return e.all.Set(self, subnet.PeersOf(leases...)) }

// until makes passes until one satisfies the condition.
func (e *bench) until(condition func(err error) bool, leases ...subnet.Lease) {
	e.t.Helper()
	var err error
	defer func() {
		if e.t.Failed() {
			e.t.Logf("got %v, log:\n%s", err, e.log)
		}
	}()
	need.Until(e.t, "the pass ends as expected", time.Minute, func() bool {
		err = e.set(leases...)
		return condition(err)
	})
}

func (e *bench) file(name string) string {
	text, err := os.ReadFile(filepath.Join(e.dir, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		e.t.Fatal(err)
	}
	return string(text)
}

func TestCommandsAreToldOfEachPeerOnce(t *testing.T) {
	t.Setenv("HOME", "/a b")
	t.Setenv("FLANNELD_ETCD_PASSWORD", "secret")
	record := `echo "$@ | $(cat) | $SUBNET $PUBLIC_IP $IPV6SUBNET $PUBLIC_IPV6 $FLANNELD_ETCD_PASSWORD" >>`
	e, err := start(t, time.Minute, map[string]string{
		"PreStartupCommand":  `printf 'mac 02:00\nsecond line\n'; echo not published >&2`,
		"PostStartupCommand": record + "post; echo $NETWORK >>post",
		"SubnetAddCommand":   record + "added", "SubnetRemoveCommand": record + "removed",
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := e.b.Attrs(self[0].Subnet); a.BackendData != `"mac 02:00\nsecond line"` || a.BackendType != "extension" {
		t.Errorf("published: %+v", a)
	}
	peers := []subnet.Lease{lease("10.5.35.0/24", "192.0.2.2", `"hello"`), lease("fd00:5:0:24::/64", "2001:db8::3", "")}
	for range 2 {
		if err := e.set(peers...); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.set(peers[1]); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"post":    "10.5.34.0/24 192.0.2.1 /a b |  | 10.5.34.0/24 192.0.2.1 fd00:5:0:22::/64 2001:db8::1 \n10.5.0.0/16\n",
		"removed": "10.5.35.0/24 192.0.2.2 /a b | hello | 10.5.35.0/24 192.0.2.2   \n",
	} {
		if got := e.file(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	added := e.file("added")
	if strings.Count(added, "\n") != 2 ||
		!strings.Contains(added, "10.5.35.0/24 192.0.2.2 /a b | hello | 10.5.35.0/24 192.0.2.2   \n") ||
		!strings.Contains(added, "  /a b |  |   fd00:5:0:24::/64 2001:db8::3 \n") {
		t.Errorf("added: %q", added)
	}
}

func TestAPeerIsAddedAgainUntilThatSucceeds(t *testing.T) {
	e, err := start(t, time.Minute, map[string]string{
		"SubnetAddCommand": `[ $SUBNET = 10.5.36.0/24 ] || { echo $SUBNET >>good; exit 0; }
			echo try >>tries; [ $(wc -l <tries) -ge 2 ] || { echo no luck >&2; exit 3; }`,
	})
	if err != nil {
		t.Fatal(err)
	}
	good, bad := lease("10.5.35.0/24", "192.0.2.2", ""), lease("10.5.36.0/24", "192.0.2.3", "")
	err = e.set(good, bad)
	if !ip.PeersOnly(err) || !strings.Contains(err.Error(), "no luck") ||
		!strings.Contains(err.Error(), "exit status 3") || !strings.Contains(err.Error(), "10.5.36.0/24") {
		t.Errorf("got %v", err)
	}
	e.until(func(err error) bool { return err == nil }, good, bad)
	if got := e.file("tries") + e.file("good"); got != "try\ntry\n10.5.35.0/24\n" {
		t.Errorf("got %q", got)
	}
}

func TestACommandThatFailsBecauseItsResultStandsIsPrecededByTheRemoval(t *testing.T) {
	e, err := start(t, time.Minute, map[string]string{
		"SubnetAddCommand": `[ ! -e stands ] && touch stands`, "SubnetRemoveCommand": `rm stands && echo removed >>removed`,
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.dir, "stands"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := e.set(lease("10.5.35.0/24", "192.0.2.2", "")); err != nil || e.file("removed") != "removed\n" {
		t.Errorf("got %v, %q", err, e.file("removed"))
	}
}

func TestAPeerThatChangesIsRemovedAndAdded(t *testing.T) {
	e, err := start(t, time.Minute,
		map[string]string{"SubnetAddCommand": `echo add $PUBLIC_IP >>log`,
			"SubnetRemoveCommand": `echo remove $PUBLIC_IP >>log`})
	if err != nil {
		t.Fatal(err)
	}
	for _, public := range []string{"192.0.2.2", "192.0.2.9"} {
		if err := e.set(lease("10.5.35.0/24", public, "")); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := e.file("log"), "add 192.0.2.2\nremove 192.0.2.2\nadd 192.0.2.9\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestACommandThatHangsIsEndedWithAllThatItHasStarted(t *testing.T) {
	e, err := start(t, 200*time.Millisecond, map[string]string{"SubnetAddCommand": `echo $$ >pid; sleep 600 & sleep 600`})
	if err != nil {
		t.Fatal(err)
	}
	peer := lease("10.5.35.0/24", "192.0.2.2", "")
	e.until(func(err error) bool { return err != nil && strings.Contains(err.Error(), "time limit") }, peer)
}

func TestTheEndOfTheDaemonEndsItsCommands(t *testing.T) {
	e, err := start(t, time.Hour, map[string]string{"SubnetAddCommand": `sleep 3600`})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.set(lease("10.5.35.0/24", "192.0.2.2", "")); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("got %v", err)
	} // Run ends in the cleanup
}

func TestPeersThatLeftWhileTheDaemonWasStoppedAreRemoved(t *testing.T) {
	record := func(leases ...subnet.Lease) subnet.Record { return subnet.Record{Leases: leases} }
	vxlan := lease("10.5.38.0/24", "192.0.2.5", `{"VNI":1}`)
	vxlan.BackendType = "vxlan"
	stays, moves := lease("10.5.36.0/24", "192.0.2.3", ""), lease("10.5.37.0/24", "192.0.2.4", "")
	e, err := start(t, time.Minute, map[string]string{
		"SubnetAddCommand":    `echo "add $SUBNET $PUBLIC_IP" >>${SUBNET%.0/24}`,
		"SubnetRemoveCommand": `echo "remove $SUBNET $PUBLIC_IP $IPV6SUBNET $(cat)" >>${SUBNET%.0/24}`,
	}, record(lease("10.5.35.0/24", "192.0.2.2", `"hello"`), lease("fd00:5:0:23::/64", "2001:db8::2", "")), record(stays),
		record(moves), record(vxlan))
	if err != nil {
		t.Fatal(err)
	}
	moves.PublicIP = netip.MustParseAddr("192.0.2.9")
	for range 2 {
		if err := e.set(stays, moves); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string]string{
		"10.5.35": "remove 10.5.35.0/24 192.0.2.2 fd00:5:0:23::/64 hello\n",
		"10.5.36": "add 10.5.36.0/24 192.0.2.3\n",
		"10.5.37": "remove 10.5.37.0/24 192.0.2.4  \nadd 10.5.37.0/24 192.0.2.9\n",
		"10.5.38": "",
	} {
		if got := e.file(file); got != want {
			t.Errorf("%s: the commands were %q, want %q", file, got, want)
		}
	}
}

func TestAStartupCommandThatFailsSaysSo(t *testing.T) {
	_, err := start(t, time.Minute, map[string]string{"PreStartupCommand": "echo no device; exit 1"})
	if failed := (*extension.StartupError)(nil); !errors.As(err, &failed) || !strings.Contains(err.Error(), "no device") {
		t.Errorf("PreStartupCommand: got %v", err)
	}
	e, err := start(t, time.Minute, map[string]string{"PostStartupCommand": "[ -e ready ] || { echo not yet; exit 1; }"})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.set(); ip.PeersOnly(err) || !strings.Contains(err.Error(), "PostStartupCommand: ") ||
		!strings.Contains(err.Error(), "not yet") {
		t.Errorf("got %v", err)
	}
	if err := os.WriteFile(filepath.Join(e.dir, "ready"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := e.set(); err != nil {
		t.Error(err)
	}
}

func TestShellSyntaxIsRefusedWithTheWayOut(t *testing.T) {
	for _, tt := range []struct{ command, found string }{
		{"ip route replace $SUBNET via ${PUBLIC_IP}", ""},
		{"/etc/flannel/add --to=$SUBNET", ""},
		{`ip route add \"$SUBNET\" via $PUBLIC_IP`, `"\""`},
		{"ip link del x; ip link add x", `";"`},
		{"cat /sys/class/net/x/address | tr a b", `"|"`},
		{"export IF_NAME=x", `"export"`},
		{"SUBNET_IP=1 ip addr add", `"SUBNET_IP=1"`},
		{"echo $(cut -f1)", `"("`},
	} {
		_, err := options.Parse([]byte(`{"SubnetAddCommand":"` + tt.command + `"}`))
		if (err == nil) != (tt.found == "") || err != nil &&
			(!strings.Contains(err.Error(), tt.found+" is for a shell") || !strings.Contains(err.Error(), "executable script")) {
			t.Errorf("%s: got %v", tt.command, err)
		}
	}
	if _, err := options.Parse([]byte(`{"SubnetRemoveCommand":"x"}`)); err == nil {
		t.Error("a remove command without an add command is accepted")
	}
}

func TestDataThatAreNoTextAreNotThoseOfAPeer(t *testing.T) {
	e, err := start(t, time.Minute, nil)
	if err != nil {
		t.Fatal(err)
	}
	if e.b.Valid(lease("10.5.35.0/24", "192.0.2.2", `"x"`)) != nil ||
		e.b.Valid(lease("10.5.35.0/24", "192.0.2.2", "")) != nil {
		t.Error("a peer of the backend is not valid")
	}
	if e.b.Valid(lease("10.5.35.0/24", "192.0.2.2", `{"VNI":1}`)) == nil {
		t.Error("a peer of another backend is valid")
	}
}
