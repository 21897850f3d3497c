package kube

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"flanneld/subnet"
)

// ClientOptions say how the API server is reached.
type ClientOptions struct {
	APIURL     string // -kube-api-url, empty: the kubeconfig's
	Kubeconfig string // -kubeconfig-file, empty (and no APIURL): the in-cluster configuration
	UserAgent  string
	Log        *slog.Logger
}

// Client speaks with the API server about nodes and, once, about this daemon's own pod: a REST client that knows the
// types of core/v1 alone and takes them as protobuf. Its requests end after requestTime; it does not retry.
type Client struct {
	rest    rest.Interface
	host    string // of the API server, for messages
	service bool   // host is the address of a Service
	log     *slog.Logger
}

// requestTime bounds one request that is no watch.
const requestTime = 10 * time.Second

// maxKubeconfig bounds a kubeconfig, in bytes: it may hold certificates.
const maxKubeconfig = 4 << 20

// NewClient reads how to reach the API server, and asks it nothing yet.
func NewClient(o ClientOptions) (*Client, error) {
	config, err := restConfig(o)
	if err != nil {
		return nil, err
	}
	scheme := runtime.NewScheme()
	if err := corev1.AddToScheme(scheme); err != nil {
		return nil, fmt.Errorf("register the types of core/v1: %w", err)
	}
	config.APIPath, config.GroupVersion = "/api", &corev1.SchemeGroupVersion
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.ContentType, config.AcceptContentTypes = runtime.ContentTypeProtobuf, runtime.ContentTypeProtobuf+
		",application/json"
	config.UserAgent, config.WarningHandler = o.UserAgent, rest.NoWarnings{}
	config.QPS = -1 // this package paces itself
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("configure the client of the API server %s: %w", config.Host, err)
	}
	return &Client{
		rest: client, host: config.Host, service: o.APIURL == "" && o.Kubeconfig == "", log: o.Log,
	}, nil
}

func restConfig(o ClientOptions) (*rest.Config, error) {
	if o.APIURL == "" && o.Kubeconfig == "" {
		config, err := rest.InClusterConfig()
		if errors.Is(err, rest.ErrNotInCluster) {
			return nil, errors.New("-kube-subnet-mgr: this is not a pod with a service account: " +
				"give -kubeconfig-file or -kube-api-url")
		}
		if err != nil {
			return nil, fmt.Errorf("read the in-cluster configuration: %w", err)
		}
		return config, nil
	}
	if o.APIURL != "" {
		if u, err := url.Parse(o.APIURL); err != nil || u.Host == "" {
			return nil, fmt.Errorf("-kube-api-url is %q, want https://HOST:PORT", o.APIURL)
		}
	}
	if o.Kubeconfig != "" { // the library would wait for ever for a FIFO
		if _, err := subnet.ReadFile(o.Kubeconfig, maxKubeconfig); err != nil {
			return nil, fmt.Errorf("read -kubeconfig-file: %w", err)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags(o.APIURL, o.Kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read -kubeconfig-file %s: %w", o.Kubeconfig, err)
	}
	return config, nil
}

// getNode reads one Node from the API server's cache.
func (c *Client) getNode(ctx context.Context, name string) (*corev1.Node, error) {
	out := &corev1.Node{}
	options := &metav1.GetOptions{ResourceVersion: "0"}
	err := c.rest.Get().Resource("nodes").Name(name).VersionedParams(options, metav1.ParameterCodec).
		Timeout(requestTime).Do(ctx).Into(out)
	if err != nil {
		return nil, c.explain("get", "nodes", err)
	}
	return out, nil
}

// podNode returns the name of the node that a pod runs on.
func (c *Client) podNode(ctx context.Context, namespace, name string) (string, error) {
	out := &corev1.Pod{}
	err := c.rest.Get().Namespace(namespace).Resource("pods").Name(name).Timeout(requestTime).Do(ctx).Into(out)
	if err != nil {
		return "", c.explain("get", "pods", err)
	}
	if out.Spec.NodeName == "" {
		return "", fmt.Errorf("pod %s/%s has no spec.nodeName", namespace, name)
	}
	return out.Spec.NodeName, nil
}

// patch is what one write changes of a node; null removes an annotation.
type patch struct {
	Metadata struct {
		UID         string             `json:"uid,omitempty"` // refused if the node was made again meanwhile
		Annotations map[string]*string `json:"annotations,omitempty"`
	} `json:"metadata"`
	Status struct {
		Conditions []corev1.NodeCondition `json:"conditions,omitempty"`
	} `json:"status"`
}

// patchNode changes nodes/status and returns what stands there then.
func (c *Client) patchNode(ctx context.Context, name string, p patch) (*corev1.Node, error) {
	body, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encode patch: %w", err)
	}
	out := &corev1.Node{}
	err = c.rest.Patch(types.StrategicMergePatchType).Resource("nodes").Name(name).SubResource("status").Body(body).
		Timeout(requestTime).Do(ctx).Into(out)
	if err != nil {
		return nil, c.explain("patch", "nodes/status", err)
	}
	return out, nil
}

// explain says what an error of the API server means to an operator.
func (c *Client) explain(verb, resource string, err error) error {
	switch {
	case apierrors.IsForbidden(err):
		return fmt.Errorf("the service account may not %s %s: add this rule to its ClusterRole: %w", verb, resource, err)
	case apierrors.IsUnauthorized(err):
		return fmt.Errorf("the API server %s does not accept the credentials: %w", c.host, err)
	case c.service && errors.As(err, new(*url.Error)):
		// The address of a Service, which kube-proxy makes work.
		return fmt.Errorf("the API server is not reached at the address of its Service %s; does kube-proxy run on "+
			"this node? "+
			"(-kube-api-url names an address that needs none): %w", c.host, err)
	}
	return fmt.Errorf("%s %s: %w", verb, resource, err)
}

// watchOptions say what a watch sees.
type watchOptions struct {
	names Names
	only  string                       // the name of the one node that is of interest; empty: all
	asked func(verb string, err error) // is called with the outcome of each request
}

// The pauses between attempts to list and watch.
const (
	firstWatchPause = 200 * time.Millisecond
	lastWatchPause  = 10 * time.Second
)

// watchNodes keeps the store up to date until ctx ends: a streaming list where the API server has it, else a list from
// its cache, and one watch, resumed where it ended. It never pages, for pages are read from etcd.
func (c *Client) watchNodes(ctx context.Context, store cache.ReflectorStore, o watchOptions) {
	logger := klog.New(logr.FromSlogHandler(quiet{c.log.Handler()}).GetSink())
	request := func(verb string, opts metav1.ListOptions) *rest.Request {
		if o.only != "" {
			opts.FieldSelector = fields.OneTermEqualSelector("metadata.name", o.only).String()
		}
		opts.Limit, opts.Continue = 0, ""
		opts.Watch = verb == "watch"
		r := c.rest.Get().Resource("nodes").VersionedParams(&opts, metav1.ParameterCodec)
		if opts.TimeoutSeconds != nil {
			r = r.Timeout(time.Duration(*opts.TimeoutSeconds) * time.Second)
		}
		return r
	}
	lw := &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			out, err := c.listNodes(ctx, o.names, request("list", opts))
			o.asked("list", err)
			return out, err
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			w, err := request("watch", opts).Watch(ctx)
			// an API server without the streaming list refuses that
			if opts.SendInitialEvents == nil || !apierrors.IsInvalid(err) {
				o.asked("watch", err)
			}
			return w, err
		},
	}
	backoff := newBackoff()
	r := cache.NewReflectorWithOptions(lw, &corev1.Node{}, store,
		cache.ReflectorOptions{Name: "nodes", Logger: &logger, Backoff: &backoff})
	r.RunWithContext(klog.NewContext(ctx, logger))
}

// listNodes returns a *nodeList, or a *corev1.NodeList where the API server does not speak protobuf.
func (c *Client) listNodes(ctx context.Context, names Names, request *rest.Request) (runtime.Object, error) {
	body, err := request.Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer body.Close()
	r := bufio.NewReaderSize(body, 64<<10)
	if prefix, _ := r.Peek(len(protobufPrefix)); string(prefix) == protobufPrefix {
		return names.readList(r)
	}
	out := &corev1.NodeList{}
	if err := json.NewDecoder(r).Decode(out); err != nil {
		return nil, fmt.Errorf("read the list of nodes: %w", err)
	}
	return out, nil
}
