package extension_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"flanneld/ip"
)

// linkIs and addrIs are events of an interface.
func linkIs(name string, up bool) ip.Event { return ip.Event{Object: ip.Link{Name: name, Up: up}} }

func addrIs(name, prefix string, gone bool) ip.Event {
	return ip.Event{Deleted: gone, Object: ip.Addr{Link: name, Prefix: netip.MustParsePrefix(prefix)}}
}

func TestAllCommandsRunAgainWhenTheUnderlayIsBack(t *testing.T) {
	gone, down, up := ip.Event{Deleted: true, Object: ip.Link{Name: "eth0"}}, linkIs("eth0", false), linkIs("eth0", true)
	lost4, lost6 := addrIs("eth0", "192.0.2.1/24", true), addrIs("eth0", "2001:db8::1/64", true)
	back4, back6 := addrIs("eth0", "192.0.2.1/24", false), addrIs("eth0", "2001:db8::7/64", false)
	for name, tt := range map[string]struct {
		events []ip.Event
		again  bool
	}{
		"link down":                 {[]ip.Event{down}, false},
		"link down and up":          {[]ip.Event{down, up}, true},
		"another link down and up":  {[]ip.Event{linkIs("eth1", false), linkIs("eth1", true)}, false},
		"link up":                   {[]ip.Event{up}, false},
		"link deleted":              {[]ip.Event{gone}, false},
		"link deleted and made":     {[]ip.Event{gone, down, up}, true},
		"address deleted":           {[]ip.Event{lost4}, false},
		"address deleted and added": {[]ip.Event{lost4, back4}, true},
		"IPv6 address for IPv4":     {[]ip.Event{lost4, back6}, false},
		"IPv6 deleted and added":    {[]ip.Event{lost6, back6}, true},
		"another address":           {[]ip.Event{addrIs("eth0", "192.0.2.9/24", true), back4}, false},
		"address renewed":           {[]ip.Event{back4}, false},
		"anything":                  {[]ip.Event{{}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			e, err := start(t, time.Minute, map[string]string{"PostStartupCommand": "echo post >>log",
				"SubnetAddCommand": "echo add >>log", "SubnetRemoveCommand": "echo remove >>log"})
			if err != nil {
				t.Fatal(err)
			}
			peer := lease("10.5.35.0/24", "192.0.2.2", "")
			if err := e.set(peer); err != nil {
				t.Fatal(err)
			}
			wake := false
			for _, ev := range tt.events {
				wake = e.b.Observe(ev)
			}
			for range 2 {
				if err := e.set(peer); err != nil {
					t.Fatal(err)
				}
			}
			want := "post\nadd\n"
			if tt.again {
				want += want
			}
			if got := e.file("log"); got != want || wake != tt.again {
				t.Errorf("the commands were %q, want %q; a pass is due: %t", got, want, wake)
			}
		})
	}
}

func TestAPeerWhoseCommandFailsOnceTheUnderlayIsBackIsRemovedWhenItLeaves(t *testing.T) {
	e, err := start(t, time.Minute, map[string]string{
		"SubnetAddCommand": "[ ! -e broken ]", "SubnetRemoveCommand": "echo remove $SUBNET >>log; [ ! -e broken ]",
	})
	if err != nil {
		t.Fatal(err)
	}
	peer := lease("10.5.35.0/24", "192.0.2.2", "")
	if err := e.set(peer); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(e.dir, "broken"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	e.b.Observe(linkIs("eth0", false))
	e.b.Observe(linkIs("eth0", true))
	if err := e.set(peer); err == nil {
		t.Error("the command has not been run again")
	}
	before := e.file("log")
	e.until(func(error) bool { return e.file("log") == before+"remove 10.5.35.0/24\n" })
}
