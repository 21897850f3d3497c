package main_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

// withResult adds the result of an ADD to a configuration, as a runtime does for CHECK and DEL.
func withResult(t *testing.T, conf, result string) string {
	t.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal([]byte(conf), &all); err != nil {
		t.Fatal(err)
	}
	all["prevResult"] = json.RawMessage(result)
	text, err := json.Marshal(all)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestCheckFindsWhatIsNotAsItWasMade(t *testing.T) {
	for _, tt := range []struct {
		name  string
		spoil func(h *host, pod string)
		code  uint
		want  string
	}{
		{"nothing is wrong", func(*host, string) {}, 0, ""},
		{"address taken away", func(h *host, pod string) { h.run("ip", "-n", pod, "addr", "flush", "dev", "eth0") }, 999,
			"delegate bridge, CHECK"},
		{"interface taken away", func(h *host, pod string) { h.run("ip", "-n", pod, "link", "del", "eth0") }, 999,
			"delegate bridge, CHECK"},
		{"address given back", func(h *host, _ string) { os.RemoveAll(h.dir + "/addresses") }, 999, "host-local"},
		{"never attached", func(h *host, _ string) { os.Remove(h.dir + "/saved/c1") }, 3, "DEL and ADD"},
		{"saved file broken", func(h *host, _ string) { os.Truncate(h.dir+"/saved/c1", 10) }, 6, "DEL and ADD"},
		{"subnet changed", func(h *host, _ string) { h.writeEnv(strings.ReplaceAll(env34, "10.5.34", "10.5.99")) },
			100, "the container has addresses of 10.5.34.0/24, but this host's subnet is 10.5.99.0/24 now"},
		{"subnet file gone", func(h *host, _ string) { os.Remove(h.dir + "/subnet.env") }, 11, "does not exist"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := newHost(t)
			pod := h.namespace("pod")
			c := call{verb: "ADD", id: "c1", ifName: "eth0", netns: pod, conf: h.conf("1.1.0")}
			c.conf = withResult(t, c.conf, h.must(c))
			tt.spoil(h, pod)
			if c.verb = "CHECK"; tt.code == 0 {
				h.must(c)
				return
			}
			h.refused(c, tt.code, tt.want)
		})
	}
}

// valid adds a list of attachments, "container/interface", to a configuration.
func valid(conf string, attachments ...string) string {
	var list []string
	for _, a := range attachments {
		id, ifName, _ := strings.Cut(a, "/")
		list = append(list, `{"containerID":"`+id+`","ifname":"`+ifName+`"}`)
	}
	return strings.TrimSuffix(conf, "}") + `,"cni.dev/valid-attachments":[` + strings.Join(list, ",") + `]}`
}

func TestGarbageIsWhatNoValidAttachmentOwns(t *testing.T) {
	h := newHost(t)
	conf := h.conf("1.1.0")
	other := strings.Replace(conf, `"name":"pods"`, `"name":"others"`, 1)
	pods := map[string]string{}
	for _, a := range []struct{ id, ifName, conf string }{
		{"stays", "eth0", conf}, {"stays", "net1", conf}, {"half", "eth0", conf}, {"half", "net1", conf},
		{"gone", "eth0", conf}, {"rebooted", "eth0", conf},
		{"stays", "net2", other}, {"elsewhere", "eth0", other},
	} {
		if pods[a.id] == "" {
			pods[a.id] = h.namespace("pod")
		}
		h.must(call{verb: "ADD", id: a.id, ifName: a.ifName, netns: pods[a.id], conf: a.conf})
	}
	h.run("ip", "netns", "del", pods["rebooted"])
	h.must(call{verb: "GC", conf: valid(conf, "stays/eth0", "stays/net1", "half/net1", "unknown/eth0")})
	if got, want := h.list("saved"),
		[]string{"elsewhere", "half:net1", "stays", "stays:net1", "stays:net2"}; !slices.Equal(got, want) {
		t.Errorf("saved %v, want %v", got, want)
	}
	if got := h.list("addresses/pods"); len(got) != 3 {
		t.Errorf("reserved %v, want three addresses", got)
	}
	if got := h.run("ip", "-n", h.netns, "-o", "link", "show", "type", "veth"); strings.Count(got, "\n") != 5 {
		t.Errorf("got interfaces %s, want five", got)
	}
	if err := os.Remove(h.dir + "/subnet.env"); err != nil {
		t.Fatal(err)
	}
	h.must(call{verb: "GC", conf: valid(conf)})
	if got := h.list("addresses/pods"); len(got) > 0 {
		t.Errorf("reserved %v, want nothing", got)
	}
	h.must(call{verb: "GC", conf: other})
	h.clean()
}

func TestGarbageThatCannotBeFreedDoesNotHoldUpTheRest(t *testing.T) {
	h := newHost(t)
	path, notes := h.fake("picky",
		`[ $CNI_COMMAND = DEL ] && [ $CNI_CONTAINERID = c2 ] && echo '{"code":99,"msg":"not this one"}' && exit 1
[ $CNI_COMMAND = ADD ] && echo '{"cniVersion":"1.1.0"}'; exit 0`)
	conf := h.conf("1.1.0", `"delegate":{"type":"picky"}`)
	pod := h.namespace("pod")
	for _, id := range []string{"c1", "c2", "c3"} {
		h.must(call{verb: "ADD", id: id, ifName: "eth0", netns: pod, path: path, conf: conf})
	}
	h.refused(call{verb: "GC", path: path, conf: valid(conf)}, 999, "container c2: ", "not this one")
	if got, want := h.list("saved"), []string{"c2"}; !slices.Equal(got, want) {
		t.Errorf("saved %v, want %v", got, want)
	}
	if got := verbs(t, notes); got[len(got)-1] != "GC" {
		t.Errorf("the delegate was called with %v, want GC last", got)
	}
}

func TestGarbageCollectionReachesTheDelegate(t *testing.T) {
	h := newHost(t)
	path, _ := h.fake("other", `exit 0`)
	h.must(call{verb: "GC", path: path, conf: valid(h.conf("1.1.0", `"delegate":{"type":"other"}`), "c1/eth0")})
	text, err := os.ReadFile(strings.Split(path, ":")[0] + "/GC.")
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Type  string
		Valid []struct{ ContainerID, IfName string } `json:"cni.dev/valid-attachments"`
	}
	if err := json.Unmarshal(text, &got); err != nil || got.Type != "other" || len(got.Valid) != 1 ||
		got.Valid[0].ContainerID != "c1" {
		t.Errorf("the delegate got %s (%v)", text, err)
	}
	for _, answer := range []string{`{"code":4,"msg":"unknown CNI_COMMAND: GC"}`, `{"code":1,"msg":"incompatible"}`} {
		path, _ := h.fake("old", `echo '`+answer+`'; exit 1`)
		h.must(call{verb: "GC", path: path, conf: valid(h.conf("1.1.0", `"delegate":{"type":"old"}`))})
	}
}
