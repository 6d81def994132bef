export { chatFor, forgetChats } from "./chats.js";
export { webSocket, type ChatSocket, type ChatSocketClass, type WebSocketOptions } from "./chat-socket.js";
export { followChat, type FollowedChat, type FollowOptions } from "./follow-chat.js";
