// The page of the REST interface's description.
window.SwaggerUIBundle({ url: "openapi.json", dom_id: "#docs", deepLinking: true, tryItOutEnabled: true });
