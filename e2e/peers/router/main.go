// The traffic router plugin with which Argo Rollouts is measured here: it writes the two weights of an HTTPRoute, and nothing else.
package main

import (
	"context"
	"encoding/json"
	"fmt"

	goplugin "github.com/hashicorp/go-plugin"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/util/retry"

	"github.com/argoproj/argo-rollouts/pkg/apis/rollouts/v1alpha1"
	"github.com/argoproj/argo-rollouts/rollout/trafficrouting/plugin/rpc"
	"github.com/argoproj/argo-rollouts/utils/plugin/types"
)

const name = "modelrollout/httproute"

var routes = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}

type router struct {
	client dynamic.Interface
}

func main() {
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig: goplugin.HandshakeConfig{ProtocolVersion: 1, MagicCookieKey: "ARGO_ROLLOUTS_RPC_PLUGIN", MagicCookieValue: "trafficrouter"},
		Plugins:         map[string]goplugin.Plugin{"RpcTrafficRouterPlugin": &rpc.RpcTrafficRouterPlugin{Impl: &router{}}},
	})
}

// InitPlugin connects to the cluster of KUBECONFIG.
func (r *router) InitPlugin() types.RpcError {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	config, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{}).ClientConfig()
	if err == nil {
		r.client, err = dynamic.NewForConfig(config)
	}
	return failed(err)
}

// SetWeight gives the canary's Service its share of the route that the Rollout names, and stable's the rest.
func (r *router) SetWeight(rollout *v1alpha1.Rollout, weight int32, _ []v1alpha1.WeightDestination) types.RpcError {
	canary := rollout.Spec.Strategy.Canary
	var settings struct {
		HTTPRoute string `json:"httpRoute"`
	}
	if err := json.Unmarshal(canary.TrafficRouting.Plugins[name], &settings); err != nil {
		return failed(err)
	}
	shares := map[string]int64{canary.CanaryService: int64(weight), canary.StableService: 100 - int64(weight)}
	return failed(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		return r.write(rollout.Namespace, settings.HTTPRoute, shares)
	}))
}

func (r *router) write(namespace, route string, shares map[string]int64) error {
	client := r.client.Resource(routes).Namespace(namespace)
	found, err := client.Get(context.Background(), route, metav1.GetOptions{})
	if err != nil {
		return err
	}
	changed := false
	spec, _ := found.Object["spec"].(map[string]any)
	rules, _ := spec["rules"].([]any)
	for _, rule := range rules {
		backends, _ := rule.(map[string]any)["backendRefs"].([]any)
		for _, each := range backends {
			backend := each.(map[string]any)
			share, ours := shares[fmt.Sprint(backend["name"])]
			if ours && backend["weight"] != share {
				backend["weight"] = share
				changed = true
			}
		}
	}
	if changed {
		_, err = client.Update(context.Background(), found, metav1.UpdateOptions{})
	}
	return err
}

// VerifyWeight has nothing to ask: a route that was accepted is in force.
func (r *router) VerifyWeight(*v1alpha1.Rollout, int32, []v1alpha1.WeightDestination) (types.RpcVerified, types.RpcError) {
	return types.NotImplemented, types.RpcError{}
}

func (r *router) UpdateHash(*v1alpha1.Rollout, string, string, []v1alpha1.WeightDestination) types.RpcError {
	return types.RpcError{}
}

func (r *router) SetHeaderRoute(*v1alpha1.Rollout, *v1alpha1.SetHeaderRoute) types.RpcError {
	return types.RpcError{ErrorString: "no header routes"}
}

func (r *router) SetMirrorRoute(*v1alpha1.Rollout, *v1alpha1.SetMirrorRoute) types.RpcError {
	return types.RpcError{ErrorString: "no mirror routes"}
}

func (r *router) RemoveManagedRoutes(*v1alpha1.Rollout) types.RpcError { return types.RpcError{} }

func (r *router) Type() string { return name }

func failed(err error) types.RpcError {
	if err != nil {
		return types.RpcError{ErrorString: err.Error()}
	}
	return types.RpcError{}
}
